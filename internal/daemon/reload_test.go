package daemon

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func (w *world) has(url string, names ...string) func() bool {
	return func() bool {
		_, body := ask(w.t, http.MethodGet, url+"/api/v1/policies", "")
		body, _, _ = strings.Cut(body, `"unmanaged"`) // those that were removed
		for _, name := range names {
			if !strings.Contains(body, `"name": "`+name+`"`) {
				return false
			}
		}
		return strings.Count(body, `"service_account"`) == len(names)
	}
}

func TestReloadOnFileChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(nil, nil))
	eventually(t, "the first policies", w.has(url, "tts-prod"))
	w.Write(w.PolicyFile, policies("tts-prod", "second"))
	eventually(t, "two policies", w.has(url, "tts-prod", "second"))

	w.Write(w.PolicyFile, "policies: [")
	eventually(t, "the fault is told", func() bool {
		_, metrics := ask(t, http.MethodGet, url+"/metrics", "")
		_, page := ask(t, http.MethodGet, url+"/", "")
		return strings.Contains(metrics, "rekeyd_config_last_reload_successful 0") && strings.Contains(page, "cannot be used") &&
			w.Log.Count("reloading policies failed") == 1
	})
	if w.Log.Count(`policies.yaml:1:1: not valid YAML`) != 1 {
		t.Error("the log does not say what is wrong, and where")
	}
	if !w.has(url, "tts-prod", "second")() {
		t.Error("a bad reload changed the policies")
	}
	w.Write(filepath.Join(w.Dir, "unrelated"), "x")
	w.Write(w.PolicyFile, policies("tts-prod", "second")) // what is in force, after all
	eventually(t, "all is well again", func() bool {
		_, metrics := ask(t, http.MethodGet, url+"/metrics", "")
		return strings.Contains(metrics, "rekeyd_config_last_reload_successful 1")
	})
	if n := w.Log.Count("reloading policies failed"); n != 1 {
		t.Errorf("the fault was told %d times", n)
	}
}

// TestReloadOnConfigMapSwap does what a kubelet does: the file is a link to ..data/file, and ..data is replaced.
func TestReloadOnConfigMapSwap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mount := filepath.Join(w.Dir, "mount")
	swap := func(name, text string) {
		t.Helper()
		next := filepath.Join(mount, "..data_tmp")
		for _, err := range []error{
			os.MkdirAll(filepath.Join(mount, name), 0o700),
			os.WriteFile(filepath.Join(mount, name, "policies.yaml"), []byte(text), 0o600),
			os.Symlink(name, next),
			os.Rename(next, filepath.Join(mount, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	swap("..1", policies("one"))
	w.PolicyFile = filepath.Join(mount, "policies.yaml")
	if err := os.Symlink("..data/policies.yaml", w.PolicyFile); err != nil {
		t.Fatal(err)
	}
	url, _ := w.run(w.build(nil, nil))
	eventually(t, "the first policies", w.has(url, "one"))
	swap("..2", policies("two"))
	if err := os.RemoveAll(filepath.Join(mount, "..1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the swapped policies", w.has(url, "two"))
	if n := w.Log.Count(`"msg":"policies reloaded"`); n != 1 {
		t.Errorf("reloaded %d times for one swap", n)
	}
}

func TestASignalTogetherWithAFileEventReloadsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hangup := make(chan os.Signal, 1)
	url, stop := w.run(w.build(nil, hangup))
	eventually(t, "the first policies", w.has(url, "tts-prod"))
	hangup <- syscall.SIGHUP
	eventually(t, "a reload because of the signal alone", func() bool { return w.Log.Count(`"msg":"policies reloaded"`) == 1 })
	hangup <- syscall.SIGHUP
	w.Write(w.PolicyFile, policies("other"))
	eventually(t, "the new policies", w.has(url, "other"))
	eventually(t, "what changed", func() bool {
		return w.Log.Count(`"policies":1,"added":["other"],"removed":["tts-prod"],"changed":null`) == 1
	})
	w.Write(w.PolicyFile, policies("last"))
	eventually(t, "the last policies", w.has(url, "last"))
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := w.Log.Count(`"msg":"policies reloaded"`); n != 3 {
		t.Errorf("reloaded %d times, want once for each change", n)
	}
}

func TestReloadCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(nil, nil))
	for _, c := range []struct {
		method, path, authorization string
		status                      int
	}{
		{http.MethodPost, "/-/reload", "", http.StatusUnauthorized},
		{http.MethodPost, "/-/reload", "Bearer wrong", http.StatusUnauthorized},
		{http.MethodPost, "/-/reload", adminToken, http.StatusUnauthorized},
		{http.MethodPost, "/-/reload", "Bearer " + adminToken, http.StatusOK},
		{http.MethodGet, "/-/reload", "Bearer " + adminToken, http.StatusMethodNotAllowed},
	} {
		if status, body := ask(t, c.method, url+c.path, c.authorization); status != c.status {
			t.Errorf("%s %s with %q: HTTP %d %s, want %d", c.method, c.path, c.authorization, status, body, c.status)
		}
	}
	w.Write(w.PolicyFile, "policies: []")
	if status, body := ask(t, http.MethodPost, url+"/-/reload", "Bearer "+adminToken); status != http.StatusUnprocessableEntity || !strings.Contains(body, "policies") {
		t.Errorf("a bad file: HTTP %d %s", status, body)
	}
	none, _ := w.run(newWorld(t).build(map[string]string{"REKEYD_ADMIN_TOKEN": ""}, nil))
	if status, _ := ask(t, http.MethodPost, none+"/-/reload", "Bearer "); status != http.StatusNotFound {
		t.Errorf("without an admin token: HTTP %d", status)
	}
}

// TestATextInForceIsLoadedAgainOnlyWhenAsked: a file that was merely touched is no news.
func TestATextInForceIsLoadedAgainOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	for _, c := range []struct {
		asked bool
		want  int
	}{{false, 0}, {true, 1}, {false, 1}} {
		if n, err := d.reload(t.Context(), c.asked); err != nil || n != 1 {
			t.Errorf("%d policies, %v", n, err)
		}
		if got := w.Log.Count(`"msg":"policies reloaded"`); got != c.want {
			t.Errorf("asked %v: reloaded %d times, want %d", c.asked, got, c.want)
		}
	}
}
