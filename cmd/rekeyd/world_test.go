package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/memkv"
)

var update = flag.Bool("update", false, "write the golden files")

// world is a simulated ElevenLabs and a Vault in memory, with commands that are run against them.
type world struct {
	t       *testing.T
	sim     *elevensim.Server
	kv      *memkv.Server
	env     map[string]string
	tty     bool   // a person is there
	pty     bool   // at a real terminal, where stdout and stderr are one
	typed   string // what the person types
	session strings.Builder
	log     strings.Builder // of all commands
}

const twoPolicies = `policies:
  - {name: tts-prod, service_account: svcacc_a, schedule: "0 3 * * 1", timezone: Europe/Oslo, permissions: [text_to_speech], sink: {path: app/tts}}
  - {name: dubbing, service_account: svcacc_b, schedule: "@every 36h", permissions: all, overlap: 2h, sink: {path: app/dubbing, field: token}}
`

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, kv: memkv.New("hvs.token-of-a-test", "secret")}
	w.sim = elevensim.New(elevensim.Options{AdminKey: "sk_admin_of_a_test", Accounts: []elevensim.Account{{ID: "svcacc_a", Name: "Speech"}, {ID: "svcacc_b", Name: "Studio"}}})
	api, vault := httptest.NewServer(w.sim), httptest.NewServer(http.HandlerFunc(w.serveVault))
	t.Cleanup(api.Close)
	t.Cleanup(vault.Close)
	w.env = map[string]string{
		"REKEYD_POLICIES": twoPolicies, "VAULT_ADDR": vault.URL, "VAULT_TOKEN": "hvs.token-of-a-test", "ELEVENLABS_API_KEY": "sk_admin_of_a_test",
		"ELEVENLABS_BASE_URL": api.URL, "REKEYD_API_RATE": "1000", "REKEYD_VERIFY_TIMEOUT": "5s", "REKEYD_CLAIM_TTL": "2s",
	}
	return w
}

func (w *world) serveVault(out http.ResponseWriter, r *http.Request) {
	resp, err := w.kv.RoundTrip(r)
	if err != nil {
		http.Error(out, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	out.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(out, resp.Body)
}

// run runs a command and adds it to the session.
func (w *world) run(args ...string) (status int, stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	a := app{lookuper: envconfig.MapLookuper(maps.Clone(w.env)), stdin: strings.NewReader(w.typed), stdout: &out, stderr: &errs}
	a.terminal = func(any) bool { return w.tty }
	end := func() {}
	if w.pty {
		end = w.sit(&a, &out)
	}
	status = a.run(w.t.Context(), args)
	end()
	fmt.Fprintf(&w.session, "$ rekeyd %s\n%s", strings.Join(args, " "), out.String())
	for line := range strings.Lines(errs.String()) {
		if strings.HasPrefix(line, "{") {
			w.log.WriteString(line)
			continue
		}
		w.session.WriteString("stderr: " + strings.TrimSuffix(line, "\n") + "\n")
	}
	fmt.Fprintf(&w.session, "exit status %d\n\n", status)
	return status, out.String(), errs.String()
}

// sit gives a command a real terminal, and the person there, who types when asked. What the terminal showed is in out at the end.
func (w *world) sit(a *app, out *bytes.Buffer) (end func()) {
	w.t.Helper()
	screen, terminal, err := pty.Open()
	if err == nil {
		err = pty.Setsize(terminal, &pty.Winsize{Rows: 50, Cols: 250})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	a.stdin, a.stdout, a.stderr, a.terminal = terminal, terminal, terminal, nil
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer, typed := make([]byte, 1<<10), w.typed
		for {
			n, err := screen.Read(buffer)
			out.Write(bytes.ReplaceAll(buffer[:n], []byte("\r"), nil))
			if asked := bytes.HasSuffix(out.Bytes(), []byte(": ")); asked && typed != "" {
				_, _ = screen.WriteString(typed)
				typed = ""
			}
			if err != nil { // the terminal is closed
				return
			}
		}
	}()
	return func() {
		_ = terminal.Close()
		<-read
		_ = screen.Close()
	}
}

// must runs a command that has to end with this status.
func (w *world) must(status int, args ...string) string {
	w.t.Helper()
	got, stdout, stderr := w.run(args...)
	if got != status {
		w.t.Errorf("rekeyd %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, stdout, stderr)
	}
	return stdout
}

// golden compares the session with the file of that name, without what differs from run to run.
func (w *world) golden(name string) {
	w.t.Helper()
	text := w.session.String()
	if dir := w.env["REKEYD_FILE_DIR"]; dir != "" {
		text = strings.ReplaceAll(text, dir, "FOLDER")
	}
	for _, a := range w.sim.State() {
		for i, k := range a.Keys {
			if strings.Contains(text, k.Secret) {
				w.t.Errorf("the secret of key %s is shown", k.ID)
			}
			text = strings.ReplaceAll(text, k.ID, fmt.Sprintf("KEY-%s%d", strings.TrimPrefix(a.ID, "svcacc_"), i+1))
		}
	}
	for _, r := range [][2]string{
		{`http://127\.0\.0\.1:\d+`, "http://ADDRESS"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*Z`, "TIME"},
		{`rekeyd\.[a-z0-9]{8}\.([a-z-]+)\.[a-z0-9]{10}`, "rekeyd.OWNER.$1.ROTATION"},
		{`"rotation": "[a-z0-9]{10}"`, `"rotation": "ROTATION"`},
		{`\b(\d+d\d+h|\d+h\d+m|\d+m\d+s|\d+s)\b`, "SPAN"},
		{`created \d{4}-\d\d-\d\d\b`, "created DATE"},
		{`rekeyd \S+ \(revision \S+\)`, "rekeyd VERSION (revision REVISION)"},
		{`(TIME \(in SPAN\)|TIME) +`, "$1 "},
		{`(\S) {3,}`, "$1  "}, // columns are as wide as the widest time
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	checkGolden(w.t, name, text)
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got:\n%s\nwant:\n%s", path, got, want)
	}
}
