package hostiletest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/rekeyd/rekeyd/internal/process"
)

// tryConfigs has rekeyd check every configuration of a family. A refusal is exit status 2 and a line for each fault.
func tryConfigs(t *testing.T, binaries process.Programs, family string, inputs []input) row {
	r := row{family: family}
	for _, in := range inputs {
		dir := t.TempDir()
		env := []string{"HOME=" + dir}
		for name, value := range in.Env {
			env = append(env, name+"="+value)
		}
		if in.Policies != "" {
			file := filepath.Join(dir, "policies.yaml")
			if err := os.WriteFile(file, []byte(in.Policies), 0o600); err != nil {
				t.Fatal(err)
			}
			env = append(env, "REKEYD_POLICY_FILE="+file)
		}
		status, said, v := run(t, binaries.Rekeyd, env, "check")
		switch {
		case v.wrong != "":
		case status != 0 && status != 2:
			v.wrong = "exit status of neither 0 nor 2: " + said
		case status == 2 && !strings.Contains(said, "rekeyd: error: "):
			v.wrong = "refused without a sentence: " + said
		}
		r.count(t, in.Name, v)
	}
	return r
}

// complaint is what is wrong with the words of rekeyd: a secret, a line that is too long, characters that do not print.
func complaint(said string) string {
	if strings.Contains(said, canary) {
		return "the canary is repeated: " + said
	}
	for line := range strings.Lines(said) {
		line = strings.TrimSuffix(line, "\n")
		switch unprintable := strings.ContainsFunc(line, func(c rune) bool { return unicode.IsControl(c) && c != '\t' }); {
		case unprintable:
			return "characters that do not print: " + strings.ToValidUTF8(line, "?")
		case len([]rune(line)) > longest:
			return "a line of more than " + line[:longest]
		}
	}
	return ""
}
