package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

func TestRunRotatesAndStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	url, stop := w.run(d)
	eventually(t, "ready, with a key", func() bool {
		status, _ := ask(t, http.MethodGet, url+"/readyz", "")
		_, err := os.Stat(filepath.Join(w.Dir, "data/secret/app/tts-prod.json"))
		return status == http.StatusOK && err == nil
	})
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if status, _ := ask(t, http.MethodGet, url+"/healthz", ""); status != 0 {
		t.Error("HTTP is still served")
	}
	if n := w.Log.Count(adminKey) + w.Log.Count(adminToken); n > 0 {
		t.Error("a secret is in the log")
	}
}

// TestHTTPAnswersWhileWorkIsFinished stops the daemon while the answer to a create is on its way.
func TestHTTPAnswersWhileWorkIsFinished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rule := elevensim.Rule{Kind: elevensim.Delay, Operation: "createAPIKey", After: true, Duration: elevensim.Duration(time.Second)}
	if err := w.Sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{rule}}); err != nil {
		t.Fatal(err)
	}
	d := w.build(nil, nil)
	url, stop := w.run(d)
	eventually(t, "a create", func() bool { return len(w.Sim.State()[0].Keys) > 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	answers := 0
	eventually(t, "stopped", func() bool {
		if status, _ := ask(t, http.MethodGet, url+"/healthz", ""); status == http.StatusOK {
			answers++
		}
		select {
		case err := <-stopped:
			stopped <- err
			return true
		default:
			return false
		}
	})
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
	if answers < 10 {
		t.Errorf("HTTP answered %d times while work was finished", answers)
	}
	if _, err := os.Stat(filepath.Join(w.Dir, "data/secret/app/tts-prod.json")); err != nil {
		t.Errorf("the rotation was not finished: %v", err)
	}
}

func TestAFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	d := w.build(map[string]string{"REKEYD_LISTEN_ADDR": taken.Addr().String()}, nil)
	d.cfg.Listener = nil
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "REKEYD_LISTEN_ADDR") {
		t.Errorf("a taken address: %v", err)
	}
	d = w.build(nil, nil)

	d.cfg.Env.PolicyFile = filepath.Join(w.Dir, "gone", "policies.yaml")
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "watching") {
		t.Errorf("a folder that cannot be watched: %v", err)
	}
	if _, err := d.cfg.Listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was left open: %v", err)
	}
}

func TestARunThatCannotServeEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	_ = d.cfg.Listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := d.Run(ctx); err == nil || !strings.Contains(err.Error(), "serving HTTP") {
		t.Errorf("got %v", err)
	}
}

func TestLoadReportsEverythingTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Write(w.PolicyFile, strings.ReplaceAll(policies("a"), "permissions: all", "permissions: [text_to_speec]"))
	_, err := Load(w.Env(map[string]string{
		"REKEYD_SINK": "vault", "VAULT_ADDR": "", "REKEYD_VAULT_AUTH": "jwt", "REKEYD_EVENTS_URL": "https://events.example.com",
		"REKEYD_WEB_CONFIG_FILE": filepath.Join(w.Dir, "none.yml"), "REKEYD_CONCURRENCY": "0",
	}))
	var faults config.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got %v", err)
	}
	for _, words := range []string{
		"REKEYD_CONCURRENCY is", "VAULT_ADDR is not set", `REKEYD_VAULT_ROLE is not set, but REKEYD_VAULT_AUTH is jwt`,
		"REKEYD_WEB_CONFIG_FILE is", "did you mean text_to_speech?",
	} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("no %q in:\n%v", words, err)
		}
	}
}

func TestTheLogCutsSecretsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	d.log.With("scope", adminToken).Info("message with "+adminToken, "error", errors.New(adminToken), "list", []string{adminToken}, adminToken, 1)
	if w.Log.Count(adminToken) != 0 || w.Log.Count("[secret]") != 5 {
		t.Errorf("the log is %s", w.Log.String())
	}
}
