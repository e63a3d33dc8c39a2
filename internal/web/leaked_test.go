package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/localtest"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// unsaid fails the test when a text has the value, in any spelling that is cut out of logs.
func unsaid(t *testing.T, where, text, value string) {
	t.Helper()
	r := new(secret.Redactor)
	r.Add(secret.New(value))
	if r.Cut(text) != text {
		t.Errorf("%s has the secret:\n%s", where, text)
	}
}

// TestAScannersStringIsNeverLogged reports secrets, known and unknown, in good and bad requests.
func TestAScannersStringIsNeverLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Write(w.PolicyFile, policies("tts-prod")+"  - {name: dubbing, service_account: svcacc_a, schedule: '@every 1h', permissions: all, mode: paused, sink: {path: app/dubbing}}\n")
	d := w.build(map[string]string{"REKEYD_LOG_LEVEL": "debug"})
	url, stop := w.run(d)
	eventually(t, "a first key", func() bool { return d.rotator.Snapshot().Policies[1].Current != nil })
	known := w.Sim.State()[0].Keys[0]
	const unknown, bearer = "sk_of_others_0123456789abcdef", "Bearer " + adminToken
	path := url + "/api/v1/leaked"
	report := func(name, authorization, body string, status int, says string) {
		t.Helper()
		got, answer := post(t, path, authorization, body)
		if got != status || !strings.Contains(answer, says) || strings.Count(answer, "\n") != 1 {
			t.Errorf("%s: HTTP %d %s", name, got, answer)
		}
		for _, value := range []string{known.Secret, unknown, adminKey} {
			unsaid(t, name+": the answer", answer, value)
		}
	}
	current := `"known":true,"policy":"tts-prod","state":"current","workspace":"default","key_id":"` + known.ID + `","works":"yes"}`
	report("known", bearer, `{"secret": "`+known.Secret+`"}`, http.StatusOK, "{"+current)
	report("white space", bearer, ` {"rotate": false, "secret": "\t `+known.Secret+`\r\n"} `+"\n", http.StatusOK, "{"+current)
	report("escaped", bearer, `{"secret": "`+strings.ReplaceAll(known.Secret, "s", `\u0073`)+`"}`, http.StatusOK, "{"+current)
	report("unknown", bearer, `{"secret": "`+unknown+`"}`, http.StatusOK, `{"known":false,"policy":"","state":""}`)
	report("unknown, rotate", bearer, `{"secret": "`+unknown+`", "rotate": true}`, http.StatusOK, `{"known":false,"policy":"","state":""}`)
	report("admin key", bearer, `{"secret": "`+adminKey+`"}`, http.StatusOK, `{"known":true,"policy":"","state":"admin","workspace":"default","works":"yes"}`)
	report("admin key, rotate", bearer, `{"secret": "`+adminKey+`", "rotate": true}`, http.StatusConflict, "no policy rotates the admin key of workspace default")
	report("no token", "", `{"secret": "`+known.Secret+`"}`, http.StatusUnauthorized, "")
	for name, body := range map[string]string{
		"nothing": "", "null": "null", "no object": `"` + known.Secret + `"`, "no JSON": known.Secret, "cut off": `{"secret": "` + known.Secret,
		"two objects": `{"secret": "` + known.Secret + `"}{}`, "rest": `{"secret": "` + known.Secret + `"} ` + unknown, "unknown field": `{"` + known.Secret + `": 1}`,
		"a field too many": `{"secret": "` + known.Secret + `", "policy": "` + unknown + `"}`, "a number": `{"secret": 1}`, "a list": `{"secret": ["` + known.Secret + `"]}`,
		"rotate is a text": `{"secret": "` + known.Secret + `", "rotate": "` + unknown + `"}`, "no secret": `{}`, "empty": `{"secret": " "}`,
		"two secrets": `{"secret": "` + known.Secret + ` ` + unknown + `"}`, "too long": `{"secret": "` + strings.Repeat(known.Secret, 30) + `"}`,
	} {
		report(name, bearer, body, http.StatusBadRequest, "The body ")
	}
	report("huge", bearer, `{"secret": "`+strings.Repeat(known.Secret, 10_000)+`"}`, http.StatusRequestEntityTooLarge, "The body ")
	report("huge and deep", bearer, strings.Repeat(`{"secret":`, 20_000), http.StatusRequestEntityTooLarge, "The body ")
	if got := d.rotator.Snapshot().Policies[1].Current.ID; got != known.ID {
		t.Error("the key was rotated without having been asked to")
	}
	report("known, rotate", bearer, `{"secret": "`+known.Secret+`", "rotate": true}`, http.StatusOK, `"works":"yes","rotation":"requested"}`)
	eventually(t, "another key, and the reported one disabled", func() bool {
		s := d.rotator.Snapshot().Policies[1]
		return s.Current.ID != known.ID && len(s.Retiring) == 1 && s.Retiring[0].State == ledger.InQuarantine
	})
	report("again", bearer, `{"secret": "`+known.Secret+`", "rotate": true}`, http.StatusOK, `"state":"quarantine","workspace":"default","key_id":"`+known.ID+`","works":"no","rotation":"not_needed"}`)
	for _, r := range w.Sim.History() {
		if r.CredentialKind == "unknown" {
			t.Error("an unknown secret was sent to ElevenLabs")
		}
	}
	var pages string
	for _, page := range []string{"/", "/api/v1/policies", "/metrics"} {
		_, body, _ := ask(t, url+page, "")
		pages += body
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	log := w.Log.String()
	for _, value := range []string{known.Secret, unknown, adminKey} {
		unsaid(t, "the log", log, value)
		unsaid(t, "a page", pages, value)
	}
	if n := strings.Count(log, `"msg":"key reported as leaked"`); n != 7 || w.Log.Count(`"reason":"reported as leaked"`) != 1 {
		t.Errorf("%d reports of known keys are in the log, want 7, or not one rotation:\n%s", n, log)
	}
}

func TestLeakedNeedsAnAdminToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(map[string]string{"REKEYD_ADMIN_TOKEN": ""}))
	if status, _ := post(t, url+"/api/v1/leaked", "Bearer ", `{"secret": "sk_a"}`); status != http.StatusNotFound {
		t.Errorf("HTTP %d", status)
	}
}

// TestAReportBeforeTheLedgerIsRead is not answered with "unknown".
func TestAReportBeforeTheLedgerIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.build(nil).handler(true)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/leaked", strings.NewReader(`{"secret": "sk_of_others"}`))
	r.Header.Set("Authorization", "Bearer "+adminToken)
	got := httptest.NewRecorder()
	h.ServeHTTP(got, r)
	if got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), "not every ledger entry has been read") {
		t.Errorf("HTTP %d %s", got.Code, got.Body.String())
	}
}

// TestALeakIsLookedForAmongManyPolicies costs no more than a few hashes for each, and no call.
func TestALeakIsLookedForAmongManyPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 200
	w.Write(w.PolicyFile, localtest.ManyPolicies(n))
	d := w.build(map[string]string{"REKEYD_RECONCILE_INTERVAL": "1h", "REKEYD_LOG_LEVEL": "error"})
	url, _ := w.run(d)
	eventually(t, "all keys", func() bool {
		for _, p := range d.rotator.Snapshot().Policies {
			if p.Current == nil || p.State != "ok" {
				return false
			}
		}
		return true
	})
	before, begun := len(w.Sim.History()), time.Now()
	for _, k := range w.Sim.State()[0].Keys {
		var l rotator.Leak
		status, body := post(t, url+"/api/v1/leaked", "Bearer "+adminToken, `{"secret": "`+k.Secret+`"}`)
		if err := json.Unmarshal([]byte(body), &l); status != http.StatusOK || err != nil || l.KeyID != k.ID {
			t.Fatalf("HTTP %d %s", status, body)
		}
	}
	known := time.Since(begun)
	if calls := len(w.Sim.History()) - before; calls != n {
		t.Errorf("%d known secrets took %d calls of ElevenLabs", n, calls)
	}
	for range n {
		if status, body := post(t, url+"/api/v1/leaked", "Bearer "+adminToken, `{"secret": "sk_of_others"}`); status != http.StatusOK || !strings.Contains(body, "false") {
			t.Fatalf("HTTP %d %s", status, body)
		}
	}
	if calls := len(w.Sim.History()) - before; calls != n {
		t.Errorf("unknown secrets took %d calls of ElevenLabs", calls-n)
	}
	t.Logf("%d known secrets in %s, and as many unknown ones in %s", n, known, time.Since(begun)-known)
}
