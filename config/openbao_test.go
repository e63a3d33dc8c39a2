package config

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenBaosNamesAreItsOwn looks for the names that rekeyd takes for OpenBao's in the source of OpenBao's client.
func TestOpenBaosNamesAreItsOwn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("downloads the source of OpenBao's client")
	}
	const module, sum = "github.com/openbao/openbao/api/v2@v2.7.1", "h1:moqdSJdKr4Bpb5c/qsUY5ZuA/TIQChVigu0qHgo8GXo="
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("downloading %s: %v: %s", module, err, out)
	}
	var got struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &got); err != nil || got.Sum != sum {
		t.Fatalf("%s is %s, not %s (%v)", module, got.Sum, sum, err)
	}
	source, err := os.ReadFile(filepath.Join(got.Dir, "client.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(baoNames(), "BAO_PROXY_ADDR", "BAO_HTTP_PROXY") {
		if !strings.Contains(string(source), `= "`+name+`"`) {
			t.Errorf("OpenBao's client does not read %s", name)
		}
	}
}

// baoNames are the names of OpenBao for variables of Vault that rekeyd reads.
func baoNames() (names []string) {
	for _, v := range variables() {
		if rest, ok := strings.CutPrefix(v.name, "VAULT_"); ok {
			names = append(names, "BAO_"+rest)
		}
	}
	return names
}
