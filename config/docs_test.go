package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicyFilesOfTheHowTos loads every policy file that a how-to shows.
func TestPolicyFilesOfTheHowTos(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("sk_verysecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for page, admin := range map[string]string{"workspaces.md": "", "admin-key.md": "default"} {
		text, err := os.ReadFile(filepath.Join("../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), "```yaml\n")
		shown, _, ended := strings.Cut(rest, "```")
		if !found || !ended {
			t.Fatalf("%s shows no policy file", page)
		}
		c, err := load(t, strings.ReplaceAll(shown, "/run/secrets/elevenlabs-eu", key), "REKEYD_SINK=vault")
		switch {
		case err != nil:
			t.Errorf("%s: %v", page, err)
		case c.Policies[0].AdminOf != admin:
			t.Errorf("%s: its first policy is the admin key of %q, want %q", page, c.Policies[0].AdminOf, admin)
		case len(c.Warnings) > 0:
			t.Errorf("%s: %v", page, c.Warnings)
		}
	}
}
