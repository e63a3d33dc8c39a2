package doctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// repository is where all pages are.
const repository = "../.."

// programs are what the commands of the pages call.
var programs process.Programs

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rekeyd-docs-")
	if err == nil {
		programs, err = process.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "preparing the tests:", err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// place is where the commands of a page are run.
type place struct {
	dir    string
	env    []string
	actual *strings.Replacer // of the usual addresses, which pages name, by those of this test
}

// worlds are the places that a page may ask for.
var worlds = map[string]func(t *testing.T) place{"programs": bare, "checkout": checkout, "vault": withVault, "workspaces": threeWorkspaces, "running": running, "told": told}

// bare has rekeyd, the simulator, vault and the folder deploy of the repository; nothing runs.
func bare(t *testing.T) place {
	t.Helper()
	dir, bin := t.TempDir(), t.TempDir()
	deploy, err := filepath.Abs(filepath.Join(repository, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		filepath.Join(bin, "rekeyd"): programs.Rekeyd, filepath.Join(bin, "elevensim"): programs.Simulator,
		filepath.Join(bin, "vault"): vaulttest.Binary(t), filepath.Join(dir, "deploy"): deploy,
	} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "NO_COLOR=1", "TERM=xterm", "LC_ALL=C.UTF-8"}
	return place{dir, env, strings.NewReplacer("127.0.0.1:9466", free(t), "127.0.0.1:8200", free(t), "127.0.0.1:8642", free(t))}
}

// free is an address that nobody listened on a moment ago.
func free(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// checkout is a copy of what git knows of the repository, where Go builds with its usual caches.
func checkout(t *testing.T) place {
	t.Helper()
	p := bare(t)
	p.dir = t.TempDir()
	list, err := exec.CommandContext(t.Context(), "git", "-C", repository, "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("asking git for the files: %v", err)
	}
	cp := exec.CommandContext(t.Context(), "xargs", "-0", "cp", "--parents", "-t", p.dir)
	cp.Dir, cp.Stdin = repository, bytes.NewReader(list)
	if out, err := cp.CombinedOutput(); err != nil {
		t.Fatalf("copying the files: %v: %s", err, out)
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"} {
		value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatalf("asking go for its %s: %v", name, err)
		}
		p.env = append(p.env, name+"="+strings.TrimSpace(string(value)))
	}
	return p
}

const policies = `policies:
  - name: tts-prod
    service_account: svcacc_9f8b7c6d5e4a3b2c1d0e
    schedule: "0 3 * * 1"
    timezone: Europe/Oslo
    permissions: [text_to_speech, voices_read]
    sink: {path: elevenlabs/tts-prod}
  - name: dubbing
    service_account: svcacc_studio
    schedule: "@every 14h"
    overlap: 4h
    permissions: [dubbing_read]
    sink: {path: elevenlabs/dubbing}
`

// withVault has a Vault too, a simulator with two service accounts, and the policy file above. SIM is where the
// simulator is managed, ROOT_TOKEN may do all in Vault; VAULT_TOKEN is rekeyd's, with the policy as shipped.
func withVault(t *testing.T) place {
	t.Helper()
	return inPlaceOf(t)
}

// threeWorkspaces is withVault, with no policy file and no admin key, and with a simulator in the place of three of the vendor's
// addresses. SIM_MAIN, SIM_EU and SIM_US are where they are managed.
func threeWorkspaces(t *testing.T) place {
	t.Helper()
	main, eu, us := programs.StartSimulator(t, "sk_admin_of_main", 2), programs.StartSimulator(t, "sk_admin_of_eu", 3), programs.StartSimulator(t, "sk_admin_of_us", 4)
	p := inPlaceOf(t, "https://api.elevenlabs.io", main.URL, "https://api.eu.residency.elevenlabs.io", eu.URL, "https://api.us.elevenlabs.io", us.URL)
	p.env = append(p.env, "REKEYD_POLICY_FILE=", "ELEVENLABS_API_KEY=", "ELEVENLABS_BASE_URL="+main.URL,
		"SIM_MAIN="+main.URL+"/_sim", "SIM_EU="+eu.URL+"/_sim", "SIM_US="+us.URL+"/_sim")
	return p
}

// inPlaceOf is withVault, where more addresses, each followed by the one that takes its place, may be named.
func inPlaceOf(t *testing.T, addresses ...string) place {
	t.Helper()
	p := bare(t)
	vault := vaulttest.StartPersistent(t)
	sim := programs.StartSimulator(t, "sk_admin_of_the_docs", 1, "svcacc_9f8b7c6d5e4a3b2c1d0e=Speech", "svcacc_studio=Studio")
	daemon := free(t)
	p.actual = strings.NewReplacer(append(addresses, "127.0.0.1:9466", daemon, "http://127.0.0.1:8200", vault.Addr, "http://127.0.0.1:8642", sim.URL, "127.0.0.1:8300", free(t))...)
	hcl, err := os.ReadFile(filepath.Join(repository, "deploy/vault/policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "policies.yaml"), []byte(policies), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env,
		"REKEYD_POLICY_FILE="+filepath.Join(p.dir, "policies.yaml"), "REKEYD_LISTEN_ADDR="+daemon, "REKEYD_RECONCILE_INTERVAL=1s",
		"REKEYD_RESYNC_INTERVAL=3s", "REKEYD_CLAIM_TTL=5s", "REKEYD_API_RATE=1000", "REKEYD_PPROF=true", "REKEYD_ADMIN_TOKEN=admin-token-of-the-docs",
		"ELEVENLABS_API_KEY=sk_admin_of_the_docs", "ELEVENLABS_BASE_URL="+sim.URL, "SIM="+sim.URL+"/_sim",
		"VAULT_ADDR="+vault.Addr, "VAULT_TOKEN="+vault.Token(t, string(hcl)), "ROOT_TOKEN="+vault.RootToken, "UNSEAL_KEY="+vault.UnsealKey)
	return p
}

// told is running, and what the daemon tells of in events.log: each event is a line.
func told(t *testing.T) place {
	t.Helper()
	p := withVault(t)
	var mu sync.Mutex
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		log, err := os.OpenFile(filepath.Join(p.dir, "events.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = io.Copy(log, io.MultiReader(r.Body, strings.NewReader("\n")))
			err = errors.Join(err, log.Close())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(receiver.Close)
	readable := strings.Replace(policies, "[dubbing_read]", "[dubbing_read, models_read]", 1) // so that a reader's call is answered 200
	if err := os.WriteFile(filepath.Join(p.dir, "policies.yaml"), []byte(readable), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, "REKEYD_EVENTS_URL="+receiver.URL, "REKEYD_EVENTS_SECRET=secret-of-the-events-of-the-docs")
	return p.started(t)
}

// running is withVault and a daemon, with the log rekeyd.log, that has made the first keys.
func running(t *testing.T) place {
	t.Helper()
	return withVault(t).started(t)
}

func (p place) started(t *testing.T) place {
	t.Helper()
	log := filepath.Join(p.dir, "rekeyd.log")
	d := process.Start(t, p.env, "sh", "-c", `exec "$0" >"$1" 2>&1`, programs.Rekeyd, log)
	process.Eventually(t, *patience, func() error {
		text, err := os.ReadFile(log)
		if n := bytes.Count(text, []byte(`"msg":"rotated"`)); n < 2 || d.Exited() {
			return fmt.Errorf("%d policies have their first key (%w):\n%s", n, err, text)
		}
		return nil
	})
	return p
}
