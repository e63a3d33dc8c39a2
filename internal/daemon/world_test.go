package daemon

import (
	"context"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/rekeyd/rekeyd/internal/localtest"
)

const (
	adminKey   = localtest.AdminKey
	adminToken = localtest.AdminToken
)

type world struct {
	*localtest.World
	t testing.TB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{localtest.New(t), t}
}

func policies(names ...string) string { return localtest.Policies(names...) }

func (w *world) build(change map[string]string, hangup <-chan os.Signal) *Daemon {
	w.t.Helper()
	s, err := Load(w.Env(change))
	w.Must(err)
	d, err := New(Config{Settings: s, Log: &w.Log, Version: "v0", Revision: "abc", Hangup: hangup, Listener: w.Listen()})
	w.Must(err)
	return d
}

// run runs the daemon until stop, which returns what Run did.
func (w *world) run(d *Daemon) (url string, stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.t.Cleanup(func() { _ = stop() })
	return "http://" + d.cfg.Listener.Addr().String(), stop
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	localtest.Eventually(t, what, f)
}

func client() *http.Client { return localtest.Client() }

func ask(t testing.TB, method, url, authorization string) (int, string) {
	t.Helper()
	status, body, _ := localtest.Ask(t, method, url, authorization)
	return status, body
}
