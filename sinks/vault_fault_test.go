package sinks_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

func TestVaultSealedAndGone(t *testing.T) {
	s := vaulttest.StartPersistent(t)
	v := openVault(t, s, s.RootToken)
	f := fixture{store: v, mount: "secret"}
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	all := func(want wanted) {
		t.Helper()
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, want)
		_, err = v.Write(t.Context(), f.ref("a"), nil, 1)
		wantError(t, err, want)
		_, err = v.List(t.Context(), f.ref("a"))
		wantError(t, err, want)
		wantError(t, v.Check(t.Context(), f.ref("unseen")), want)
	}
	s.Seal(t)
	all(wanted{reason: ledger.FailureSinkSealed, outage: true, says: "Vault is sealed", advice: "unseal Vault"})
	wantError(t, v.Ready(t.Context()), wanted{reason: ledger.FailureSinkSealed, outage: true})
	s.Unseal(t)
	wantDoc(t, f, "a", map[string]any{"n": "1"}, 1)
	s.Kill()
	// Connections to the dead process may still be in the pool: the first write on one cannot know.
	eventually(t, "every connection is found to be dead", func() bool {
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	all(wanted{reason: ledger.FailureSinkUnreachable, outage: true, says: "refused", advice: "check VAULT_ADDR"})
	s.Restart(t)
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
}

// stub answers as a test wants, where the real Vault will not.
func stub(t *testing.T, serve http.HandlerFunc, change ...func(*sinks.VaultOptions)) (*sinks.Vault, fixture) {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	config := vaultapi.DefaultConfig()
	config.Address = server.URL
	o := sinks.VaultOptions{Config: config, Token: secret.New("hvs.stub"), Timeout: 200 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	v, err := sinks.NewVault(o)
	must(t, err)
	return v, fixture{store: v, mount: "secret"}
}

const isKV2 = `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`

// stubWrite lets the mount be found and answers everything else as serve does.
func stubWrite(t *testing.T, serve http.HandlerFunc, change ...func(*sinks.VaultOptions)) (*sinks.Vault, fixture) {
	t.Helper()
	return stub(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
			_, _ = io.WriteString(w, isKV2)
			return
		}
		serve(w, r)
	}, change...)
}

func TestVaultAnswers(t *testing.T) {
	down := ledger.FailureSinkUnreachable
	for name, c := range map[string]struct {
		status      int
		body        string
		read, write wanted
	}{
		"rate limit": {429, `{"errors":["request path \"x\": rate limit quota exceeded"]}`,
			wanted{reason: ledger.FailureSinkRateLimited, outage: true, says: "429: request path"}, wanted{reason: ledger.FailureSinkRateLimited, outage: true}},
		"internal error": {500, `{"errors":["1 error occurred:\n\t* storage\n\n"]}`,
			wanted{reason: ledger.FailureSinkError, says: "500: 1 error occurred: * storage;"}, wanted{reason: ledger.FailureSinkError, maybe: true}},
		"no active node": {500, `{"errors":["local node not active but active cluster node not found"]}`,
			wanted{reason: ledger.FailureSinkStandby, outage: true}, wanted{reason: ledger.FailureSinkStandby, outage: true}},
		"bad gateway": {502, `<html>hvs.stub`,
			wanted{reason: down, outage: true, says: "answers 502;"}, wanted{reason: down, outage: true, maybe: true}},
		"sealed":  {503, `{"errors":["Vault is sealed"]}`, wanted{reason: ledger.FailureSinkSealed, outage: true}, wanted{reason: ledger.FailureSinkSealed, outage: true}},
		"standby": {472, ``, wanted{reason: ledger.FailureSinkStandby, outage: true}, wanted{reason: ledger.FailureSinkStandby, outage: true}},
		"behind":  {412, `{"errors":["required index state not present"]}`, wanted{reason: ledger.FailureSinkStandby, outage: true}, wanted{reason: ledger.FailureSinkStandby, outage: true}},
		"too large": {413, `{"errors":["http: request body too large"]}`,
			wanted{reason: ledger.FailureSinkTooLarge}, wanted{reason: ledger.FailureSinkTooLarge, says: "too large"}},
		"long string": {500, `{"errors":["JSON string value exceeds allowed length"]}`,
			wanted{reason: ledger.FailureSinkTooLarge}, wanted{reason: ledger.FailureSinkTooLarge}},
		"other 400": {400, `{"errors":["check-and-set parameter required for this call"]}`,
			wanted{reason: ledger.FailureSinkError}, wanted{reason: ledger.FailureSinkError, says: "required"}},
		"not JSON": {200, `hello hvs.stub`,
			wanted{reason: ledger.FailureSinkError, says: "not the JSON"}, wanted{reason: ledger.FailureSinkError, maybe: true}},
		"of a proxy": {404, `<html>404 page not found`,
			wanted{reason: down, outage: true, says: "what answers there is not Vault", advice: "VAULT_ADDR"}, wanted{reason: down, outage: true, maybe: true}},
		"of another API": {404, `{"detail":"Not Found"}`,
			wanted{reason: down, outage: true, says: "what answers there is not Vault", advice: "VAULT_ADDR"}, wanted{reason: down, outage: true, maybe: true}},
		"other JSON": {200, `{"data":{"keys":3}}`,
			wanted{reason: ledger.FailureSinkError}, wanted{reason: ledger.FailureSinkError, maybe: true}},
		"no content": {204, ``, wanted{reason: ledger.FailureSinkError}, wanted{reason: ledger.FailureSinkError, maybe: true}},
		"a list": {200, `{"data":{"data":[1],"metadata":{"version":3}}}`,
			wanted{reason: ledger.FailureSinkError, says: "version 3 is not a JSON object"}, wanted{reason: ledger.FailureSinkError, maybe: true}},
		"talkative": {500, `{"errors":["` + strings.Repeat("hvs.stub ", 200) + `"]}`,
			wanted{reason: ledger.FailureSinkError, says: "…"}, wanted{reason: ledger.FailureSinkError, maybe: true}},
	} {
		t.Run(name, func(t *testing.T) {
			_, f := stubWrite(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := f.store.Read(t.Context(), f.ref("a"), 0)
			wantError(t, err, c.read)
			if err != nil && len([]rune(err.Error())) > 500 {
				t.Errorf("%d characters: %v", len(err.Error()), err)
			}
			_, err = f.store.Write(t.Context(), f.ref("a"), nil, 0)
			wantError(t, err, c.write)
		})
	}
}

func TestVaultFollowsNoRedirect(t *testing.T) {
	var elsewhere int
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		v, f := stubWrite(t, http.RedirectHandler(other.URL, status).ServeHTTP,
			func(o *sinks.VaultOptions) { o.Config.HttpClient.CheckRedirect = nil })
		want := wanted{reason: ledger.FailureSinkStandby, outage: true, advice: "active node"}
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, want)
		_, err = v.Write(t.Context(), f.ref("a"), nil, 0)
		wantError(t, err, want)
		wantError(t, v.Ready(t.Context()), want)
	}
	if elsewhere > 0 {
		t.Errorf("%d requests followed a redirect", elsewhere)
	}
}

func TestVaultNamespaceAndEnvironment(t *testing.T) {
	t.Setenv("VAULT_NAMESPACE", "from-the-environment")
	t.Setenv("VAULT_TOKEN", "hvs.from-the-environment")
	for _, namespace := range []string{"", "team/a"} {
		v, f := stub(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("X-Vault-Namespace"); got != namespace {
				t.Errorf("%s in namespace %q, want %q", r.URL, got, namespace)
			}
			if got := r.Header.Get("X-Vault-Token"); got != "hvs.stub" {
				t.Errorf("%s with another token", r.URL)
			}
			_, _ = io.WriteString(w, isKV2)
		}, func(o *sinks.VaultOptions) { o.Namespace = namespace })
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, wanted{reason: ledger.FailureSinkError})
	}
}

// cutter applies a request and loses its answer, or loses the request.
type cutter struct {
	http.RoundTripper
	before, after, body error
}

func (c cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/sys/") {
		return c.RoundTripper.RoundTrip(r)
	}
	if c.before != nil {
		return nil, c.before
	}
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if c.after != nil {
		_ = resp.Body.Close()
		return nil, c.after
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(resp.Body, 10), failing{c.body}), resp.Body}
	return resp, nil
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestVaultLostAnswers(t *testing.T) {
	s := vaulttest.Start(t)
	direct := fixture{store: openVault(t, s, s.RootToken), mount: "secret"}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connection refused")}
	for name, c := range map[string]struct {
		cut         cutter
		read, write wanted
		applied     bool
	}{
		"never dialled": {cutter{before: refused},
			wanted{reason: ledger.FailureSinkUnreachable, outage: true}, wanted{reason: ledger.FailureSinkUnreachable, outage: true}, false},
		"lost on the way": {cutter{before: io.ErrUnexpectedEOF},
			wanted{reason: ledger.FailureSinkUnreachable, outage: true}, wanted{reason: ledger.FailureSinkUnreachable, outage: true, maybe: true}, false},
		"lost on the way back": {cutter{after: io.EOF},
			wanted{reason: ledger.FailureSinkUnreachable, outage: true}, wanted{reason: ledger.FailureSinkUnreachable, outage: true, maybe: true}, true},
		"cut short": {cutter{body: io.ErrUnexpectedEOF},
			wanted{reason: ledger.FailureSinkError}, wanted{reason: ledger.FailureSinkError, maybe: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := strings.ReplaceAll(name, " ", "-")
			c.cut.RoundTripper = new(http.Transport)
			f := fixture{store: openVault(t, s, s.RootToken, func(o *sinks.VaultOptions) { o.Transport = c.cut }), mount: "secret"}
			_, err := f.store.Write(t.Context(), f.ref(path), map[string]any{"n": "1"}, 0)
			wantError(t, err, c.write)
			_, err = f.store.Read(t.Context(), f.ref(path), 0)
			wantError(t, err, c.read)
			if c.applied {
				wantDoc(t, direct, path, map[string]any{"n": "1"}, 1)
			} else {
				wantDoc(t, direct, path, nil, 0)
			}
		})
	}
}

func TestVaultTimeoutAndCancel(t *testing.T) {
	arrived, done := make(chan struct{}, 9), make(chan struct{})
	v, f := stubWrite(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-done })
	t.Cleanup(func() { close(done) }) // before the server is closed, which waits for its handlers
	_, err := v.Read(t.Context(), f.ref("a"), 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkTimeout, outage: true, says: "no answer within 200ms"})
	_, err = v.Write(t.Context(), f.ref("a"), nil, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkTimeout, outage: true, maybe: true})
	<-arrived
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err = v.Write(ctx, f.ref("a"), nil, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkUnreachable, maybe: true, says: "context canceled"})
}

func TestVaultTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	for address, want := range map[string]wanted{
		server.URL: {reason: ledger.FailureSinkTLSCA, outage: true, advice: "VAULT_CACERT"},
		old.URL:    {reason: ledger.FailureSinkTLS, outage: true, advice: "at least 1.2"},
		strings.Replace(server.URL, "https", "http", 1): {reason: ledger.FailureSinkTLS, outage: true, advice: "https://"},
		strings.Replace(plain.URL, "http", "https", 1):  {reason: ledger.FailureSinkTLS, outage: true, advice: "https://"},
	} {
		v, f := stub(t, nil, func(o *sinks.VaultOptions) {
			o.Config.Address = address
			o.Timeout = 10 * time.Second
		})
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, want)
		_, err = v.Write(t.Context(), f.ref("a"), nil, 0)
		wantError(t, err, want)
	}
}

func TestNewVaultRefuses(t *testing.T) {
	if _, err := sinks.NewVault(sinks.VaultOptions{}); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: %v", err)
	}
	config := vaultapi.DefaultConfig()
	config.Address = "http://[::1"
	if _, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.stub")}); err == nil {
		t.Error("an address that is none was accepted")
	}
	t.Setenv("VAULT_CLIENT_TIMEOUT", "soon")
	if _, err := sinks.VaultConfig(); err == nil || !strings.Contains(err.Error(), "VAULT_CLIENT_TIMEOUT") {
		t.Errorf("a broken environment: %v", err)
	}
}

// As many calls at a time as the store may make use as many connections, which stay open, and each is made once, whatever
// comes back: the library's own retries are off.
func TestVaultConnectionsAndRetries(t *testing.T) {
	const atOnce, rounds = 12, 20
	var opened, calls atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader([]int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests}[calls.Load()%3])
		_, _ = io.WriteString(w, `{"errors":["no"]}`)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	config := vaultapi.DefaultConfig()
	config.Address = server.URL
	v, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.stub"), MaxConns: atOnce})
	must(t, err)
	var group sync.WaitGroup
	for range atOnce {
		group.Go(func() {
			for range rounds {
				if _, err := v.Read(context.Background(), ledger.Ref{Mount: "secret", Path: "a"}, 0); err == nil {
					t.Error("a refused read succeeded")
				}
			}
		})
	}
	group.Wait()
	if n := calls.Load(); n != atOnce*rounds {
		t.Errorf("%d reads made %d calls", atOnce*rounds, n)
	}
	if n := opened.Load(); n > 2*atOnce { // net/http may dial one more for a call that then finds a free one
		t.Errorf("%d calls at a time opened %d connections", atOnce, n)
	}
}

// TestWhatAnswersIsNotVault: neither a mount that does not exist nor an empty record is concluded from what another server answers.
func TestWhatAnswersIsNotVault(t *testing.T) {
	want := wanted{reason: ledger.FailureSinkUnreachable, outage: true, says: "is not Vault", advice: "check host, port and path in VAULT_ADDR"}
	login := func(o *sinks.VaultOptions) {
		o.Token, o.Login = secret.Secret{}, sinks.CertLogin("cert", "")
	}
	for name, change := range map[string][]func(*sinks.VaultOptions){"token": nil, "login": {login}} {
		t.Run(name, func(t *testing.T) {
			v, f := stub(t, http.NotFound, change...)
			_, err := v.Read(t.Context(), f.ref("a"), 0)
			wantError(t, err, want)
			_, err = v.List(t.Context(), f.ref("a"))
			wantError(t, err, want)
			wantError(t, v.CheckMount(t.Context(), "secret"), want)
			_, _, err = v.Seal(t.Context())
			wantError(t, err, want)
		})
	}
}
