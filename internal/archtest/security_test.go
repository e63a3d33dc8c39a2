package archtest

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestTheThreatModelIsShown looks for the tests that SECURITY.md names.
func TestTheThreatModelIsShown(t *testing.T) {
	page, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(string(page), -1)
	if len(named) < 20 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, name := range named {
		grep := exec.CommandContext(t.Context(), "grep", "-rqw", "--include=*_test.go", "func "+name, "../..")
		if err := grep.Run(); err != nil {
			t.Errorf("there is no %s: %v", name, err)
		}
	}
}
