package archtest

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestNamedTestsExist looks for the tests that these pages name.
func TestNamedTestsExist(t *testing.T) {
	for _, name := range []string{"SECURITY.md", "docs/protocol.md", "docs/reliability.md"} {
		page, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(string(page), -1)
		if len(named) < 20 {
			t.Errorf("%s: only %d tests are named", name, len(named))
		}
		for _, test := range named {
			grep := exec.CommandContext(t.Context(), "grep", "-rqw", "--include=*_test.go", "func "+test, "../..")
			if err := grep.Run(); err != nil {
				t.Errorf("%s: there is no %s: %v", name, test, err)
			}
		}
	}
}
