package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

// alertmanagerTools finds Alertmanager and its amtool, Debian's names for them first.
func alertmanagerTools(t *testing.T) (server, amtool string) {
	t.Helper()
	server, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		server, err = exec.LookPath("alertmanager")
	}
	amtool, missing := exec.LookPath("amtool")
	switch err = errors.Join(err, missing); {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skipf("no notification is sent: %v (apt-get install prometheus-alertmanager)", err)
	}
	return server, amtool
}

// receivers takes what Alertmanager sends to Slack and PagerDuty, by path.
type receivers struct {
	*httptest.Server
	mu  sync.Mutex
	got map[string]string
}

func newReceivers(t *testing.T) *receivers {
	t.Helper()
	r := &receivers{got: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got[req.URL.Path] += string(body) + "\n"
		w.WriteHeader(http.StatusAccepted) // as PagerDuty does
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(r.Close)
	return r
}

// hear waits until words were sent to a path, in one message.
func (r *receivers) hear(t *testing.T, path string, words ...string) {
	t.Helper()
	process.Eventually(t, process.Patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
	messages:
		for message := range strings.Lines(r.got[path]) {
			for _, word := range words {
				if !strings.Contains(message, word) {
					continue messages
				}
			}
			return nil
		}
		return fmt.Errorf("none of what was sent to %s has all of %q:\n%s", path, words, r.got)
	})
}

func (r *receivers) heard(word string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(fmt.Sprint(r.got), word)
}

// alertmanager runs with an example as shipped, but for its waits and for where receivers and their credentials are.
func (r *receivers) alertmanager(t *testing.T, server, example string) (p *process.Process, url string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/prometheus/" + example)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"slack-url": r.URL + "/slack", "pagerduty-key": "key-of-pages", "pagerduty-low-key": "key-of-the-rest", "pagerduty-speech-key": "key-of-speech"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := strings.ReplaceAll(string(text), "/etc/alertmanager/", dir+"/")
	config = regexp.MustCompile(`(group_wait|group_interval): \w+`).ReplaceAllString(config, "$1: 100ms")
	config = strings.ReplaceAll(config, "        severity: ", "        url: "+r.URL+"/pagerduty\n        severity: ")
	file := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p = process.Start(t, nil, server, "--config.file="+file, "--storage.path="+dir, "--web.listen-address=127.0.0.1:0", "--cluster.listen-address=")
	return p, "http://" + p.Find(&p.Stderr, `Listening on" address=([0-9.:]+)`)
}

// adapter builds and runs docs/examples/events-to-alertmanager, with the secret, before an Alertmanager.
func adapter(t *testing.T, alertmanager, secret string) (url string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "adapter")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../docs/examples/events-to-alertmanager").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l := httptest.NewServer(nil) // to learn a free address
	address := strings.TrimPrefix(l.URL, "http://")
	l.Close()
	p := process.Start(t, []string{"EVENTS_SECRET=" + secret}, binary, address, alertmanager)
	process.Eventually(t, process.Patience, func() error {
		if status, _ := process.Request(t, http.MethodPost, "http://"+address, "", ""); status != http.StatusForbidden {
			return fmt.Errorf("without a signature: HTTP %d\n%s", status, p.Stderr.String())
		}
		return nil
	})
	return "http://" + address
}

// TestNotifications sends rekeyd's alerts and events through a real Alertmanager with the examples of deploy/prometheus.
func TestNotifications(t *testing.T) {
	t.Parallel()
	server, amtool := alertmanagerTools(t)
	_, inhibitions, _ := strings.Cut(text(t, "../../deploy/prometheus/alertmanager.yml"), "\ninhibit_rules:")
	for example, want := range map[string]map[string]string{
		"alertmanager-slack.yaml": {"severity=critical": "slack-oncall", "severity=warning": "slack", "severity=info": "slack",
			"severity=critical label_team=speech": "slack-speech,slack-oncall", "severity=warning label_team=speech": "slack-speech",
			"severity=warning label_team=music": "slack"},
		"alertmanager-pagerduty.yaml": {"severity=critical": "pagerduty", "severity=warning": "pagerduty-low", "severity=info": "none",
			"severity=critical label_team=speech": "pagerduty-speech", "severity=critical label_team=music": "pagerduty"},
	} {
		file := "../../deploy/prometheus/" + example
		if _, same, _ := strings.Cut(text(t, file), "\ninhibit_rules:"); same != inhibitions || same == "" {
			t.Errorf("%s has other inhibitions than alertmanager.yml", example)
		}
		if out, err := exec.CommandContext(t.Context(), amtool, "check-config", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", example, err, out)
		}
		for labels, receiver := range want {
			args := append([]string{"config", "routes", "test", "--config.file=" + file}, strings.Fields(labels)...)
			out, err := exec.CommandContext(t.Context(), amtool, args...).Output()
			if strings.TrimSpace(string(out)) != receiver {
				t.Errorf("%s: %s goes to %s (%v), want %s", example, labels, out, err, receiver)
			}
		}
	}

	got := newReceivers(t)
	_, slack := got.alertmanager(t, server, "alertmanager-slack.yaml")
	last, pagerduty := got.alertmanager(t, server, "alertmanager-pagerduty.yaml")
	for i, severity := range []string{"critical", "critical", "warning"} {
		for _, url := range []string{slack, pagerduty} {
			fire(t, url, severity, fmt.Sprintf("policy-%d", i))
		}
	}
	got.hear(t, "/slack", `"channel":"#keys-oncall"`, "FIRING: RekeydTried", "policy-0 is tried", "policy-1 is tried", "https://runbook.example/tried")
	got.hear(t, "/slack", `"channel":"#keys"`, "policy-2 is tried")
	got.hear(t, "/pagerduty", `"routing_key":"key-of-pages"`, `"severity":"critical"`, "RekeydTried: policy-", "(1 of 2)", "https://runbook.example/tried")
	got.hear(t, "/pagerduty", `"routing_key":"key-of-the-rest"`, `"severity":"warning"`, "policy-2 is tried")

	w := newWorld(t, common.vault)
	w.calm("")
	const secret = "secret-of-the-events"
	url := adapter(t, pagerduty, secret)
	d := w.start(map[string]string{"REKEYD_EVENTS_URL": url, "REKEYD_EVENTS_SECRET": secret})
	first := w.becomes("")
	w.disable(first, "exposed_publicly")
	got.hear(t, "/pagerduty", `"routing_key":"key-of-pages"`, "rekeyd.key_disabled: policy tts-prod: exposed_publicly")
	w.becomes(first)
	delivered := func(result string) string { return d.metric(`rekeyd_events_total{result="` + result + `"}`) }
	process.Eventually(t, process.Patience, func() error {
		if delivered("delivered") == "0" || delivered("failed") != "0" {
			return fmt.Errorf("delivered %s, failed %s", delivered("delivered"), delivered("failed"))
		}
		return nil
	})
	if got.heard("rekeyd.rotated") {
		t.Error("a rotation that went well pages")
	}

	last.Kill() // Alertmanager is down: rekeyd sees what the adapter says of it
	if status, body := process.Request(t, http.MethodPost, d.url+"/api/v1/policies/tts-prod/rotate", "Authorization: Bearer "+w.adminToken, ""); status != http.StatusAccepted {
		t.Fatalf("HTTP %d %s", status, body)
	}
	process.Eventually(t, time.Minute, func() error {
		if delivered("failed") == "0" || !strings.Contains(d.Stderr.String(), `"msg":"event not delivered"`) {
			return fmt.Errorf("failed %s, and the log says\n%s", delivered("failed"), d.Stderr.String())
		}
		return nil
	})
	d.end()
}

// fire has an Alertmanager told of an alert, as Prometheus tells it.
func fire(t *testing.T, url, severity, policy string) {
	t.Helper()
	body, err := json.Marshal([]any{map[string]any{
		"labels":      map[string]string{"alertname": "RekeydTried", "severity": severity, "policy": policy},
		"annotations": map[string]string{"summary": policy + " is tried", "runbook_url": "https://runbook.example/tried"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := process.Request(t, http.MethodPost, url+"/api/v2/alerts", "Content-Type: application/json", string(body)); status != http.StatusOK {
		t.Fatalf("HTTP %d %s", status, answer)
	}
}
