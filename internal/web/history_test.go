package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

const markup = `<b>a</b> "drill" & <script>alert(1)</script>`

// rotatedByHand is a world whose policy tts-prod was rotated with words that have markup.
func rotatedByHand(t *testing.T) (w *world, s *served, url string) {
	t.Helper()
	w = newWorld(t)
	w.Write(w.PolicyFile, policies("dubbing", "tts-prod"))
	s = w.build(nil)
	url, _ = w.run(s)
	rotations := func() int { return len(s.rotator.Snapshot().Policies[1].History.Unpack()) }
	eventually(t, "first keys", func() bool { return rotations() == 1 && len(s.rotator.Snapshot().Policies[0].History.Unpack()) == 1 })
	w.Must(s.rotator.Request("tts-prod", rotator.RotateOptions{Reason: markup}))
	eventually(t, "a second key", func() bool { return rotations() == 2 })
	return w, s, url
}

func TestOnePolicyWithItsHistory(t *testing.T) {
	t.Parallel()
	w, s, url := rotatedByHand(t)
	status, body, header := ask(t, url+"/api/v1/policies/tts-prod", "")
	var got struct {
		Name    string
		Key     KeyView
		History []RotationView
	}
	if err := json.Unmarshal([]byte(body), &got); status != http.StatusOK || err != nil || header.Get("Content-Type") != "application/json" {
		t.Fatalf("HTTP %d %s %v", status, body, err)
	}
	if h := got.History; got.Name != "tts-prod" || len(h) != 2 || h[0].Reason != ledger.TriggerFirst || h[1].By != ledger.ByHTTP || h[1].Words != markup ||
		h[1].KeyID != got.Key.ID || h[1].PreviousKeyID != h[0].KeyID || h[1].Policy != "tts-prod" {
		t.Errorf("it says %s", body)
	}
	status, page, header := ask(t, url+"/policies/tts-prod", "")
	if status != http.StatusOK || header.Get("Content-Security-Policy") != pagePolicy || strings.Contains(page, "<b>") || strings.Contains(page, "<script>") {
		t.Errorf("HTTP %d %v\n%s", status, header, page)
	}
	if !strings.Contains(page, "&lt;b&gt;a&lt;/b&gt;") || !strings.Contains(page, `replaced <span class="id">`+got.History[0].KeyID) {
		t.Errorf("the page says\n%s", page)
	}
	eventually(t, "its settings as listed", func() bool {
		_, page, _ := ask(t, url+"/policies/tts-prod", "")
		return strings.Contains(page, `<td role="cell" data-label="Policy">all</td><td role="cell" data-label="Key">all</td>`)
	})
	for _, path := range []string{"/policies/", "/api/v1/policies/"} {
		if status, body, _ := ask(t, url+path+"tts", ""); status != http.StatusNotFound || body != noPolicy+"\n" {
			t.Errorf("%stts: HTTP %d %s", path, status, body)
		}
	}
	w.Write(w.PolicyFile, policies("dubbing"))
	_, err := s.cfg.Reload(t.Context())
	w.Must(err)
	for path, removed := range map[string]string{"/policies/": "removed from the policy file", "/api/v1/policies/": `"reason": "unmanaged"`} {
		eventually(t, "its history once it is removed at "+path, func() bool {
			status, body, _ := ask(t, url+path+"tts-prod", "")
			return status == http.StatusOK && strings.Contains(body, removed) && strings.Contains(body, got.History[0].KeyID)
		})
	}
	for _, k := range w.Sim.State()[0].Keys {
		if strings.Contains(body+page, k.Secret) {
			t.Error("a secret is shown")
		}
	}
}

// TestTheHistoryIsShownWhereThePageIs: its pages need what the list needs.
func TestTheHistoryIsShownWhereThePageIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(map[string]string{"REKEYD_STATUS_PAGE": "off"}))
	up(t, url)
	for _, path := range []string{"/", "/policies/tts-prod", "/api/v1/policies/tts-prod"} {
		if status, body, _ := ask(t, url+path, ""); status != http.StatusForbidden || strings.Contains(body, "svcacc") {
			t.Errorf("%s: HTTP %d %s", path, status, body)
		}
	}
}

func TestTheHistoryInABrowser(t *testing.T) {
	t.Parallel()
	_, _, url := rotatedByHand(t)
	b := newBrowser(t)
	b.do(b.wide(1280), chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#policy-tts-prod")))
	b.do(chromedp.Click(chromedp.CSS("#policy-tts-prod a")), chromedp.WaitVisible(chromedp.CSS("#history")))
	if got := b.text(`location.pathname + " " + document.title + " " + document.querySelectorAll("#history > li").length`); got != "/policies/tts-prod tts-prod - rekeyd 2" {
		t.Errorf("the link leads to %s", got)
	}
	if got := b.text(`document.querySelector("#history q").textContent + document.querySelectorAll("#history script, #history q b").length`); got != markup+"0" {
		t.Errorf("a person's words are shown as %s", got)
	}
}

// TestAHealedLeakOnThePage is shown for a day, beside the state.
func TestAHealedLeakOnThePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.build(nil)
	url, _ := w.run(s)
	current := func() string {
		if c := s.rotator.Snapshot().Policies[0].Current; c != nil {
			return c.ID
		}
		return ""
	}
	eventually(t, "a first key", func() bool { return current() != "" })
	first := current()
	w.Must(w.Sim.DisableKey(first, "exposed_publicly"))
	eventually(t, "another key", func() bool { return current() != first })
	for _, path := range []string{"/", "/policies/tts-prod"} {
		if _, page, _ := ask(t, url+path, ""); !strings.Contains(page, "Leaked, replaced ") {
			t.Errorf("%s does not say that the key leaked:\n%s", path, page)
		}
	}
	if _, page, _ := ask(t, url+"/policies/tts-prod", ""); !strings.Contains(page, `disabled already <span class="id">`+first) || !strings.Contains(page, "<strong>leak</strong>: exposed_publicly") {
		t.Errorf("the history says\n%s", page)
	}
}

func TestARotationOnThePage(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	past := ledger.Past{By: ledger.ByHTTP, Reason: ledger.TriggerRequested, KeyID: "k2", PreviousKeyID: "k1", Created: at, Published: at, Disabled: at, Deleted: at.Add(time.Hour),
		Probes: []ledger.ProbeAnswer{{Path: "/v1/<i>", Status: 200}}, Proof: ledger.StillAccepted, ProofAt: at}
	status := rotator.PolicyStatus{Policy: &plan.Policy{Name: "p"}, Outlook: plan.Outlook{State: plan.StateOK}, History: ledger.Pack([]ledger.Past{past})}
	var body strings.Builder
	one := policyOf(rotator.Snapshot{Policies: []rotator.PolicyStatus{status}}, elevenlabs.Key{}, false, at.Add(2*time.Hour), frame{}, false)
	if err := pages().ExecuteTemplate(&body, "policy.html", one); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`created <span class="id">k2</span> <span class="soft">probes answered: 1 of 1; /v1/&lt;i&gt;: 200</span>`,
		`<time datetime="2026-03-03T13:00:00Z" title="2026-03-03 13:00:00 UTC">1h0m ago</time> deleted <span class="id">k1</span>`,
		`secret still accepted <span class="id">k1</span>`,
	} {
		if !strings.Contains(body.String(), want) {
			t.Errorf("no %s in\n%s", want, body.String())
		}
	}
}
