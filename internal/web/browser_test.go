package web

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/localtest"
	"github.com/rekeyd/rekeyd/rotator"
)

// browser is one tab of a headless Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the tab in it
}

func newBrowser(t *testing.T, options ...chromedp.ExecAllocatorOption) browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("chromium is not installed, so the status page is not tested")
	case err != nil:
		t.Skip("chromium is not installed, so the status page is not tested")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	options = append(options, chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(time.Minute), chromedp.WindowSize(1280, 800))
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], options...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := browser{t, ctx}
	if err := chromedp.Listen(ctx, b.complaint); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// complaint fails the test for what a browser reports: a breach of the page's own policy, a script that stops.
func (b browser) complaint(event any) {
	e, ok := event.(*log.EventEntryAdded)
	if !ok || e.Entry.Level != log.EntryLevelError || strings.HasSuffix(e.Entry.URL, "/favicon.ico") || strings.HasSuffix(e.Entry.URL, "/rotate") {
		return
	}
	b.t.Errorf("the browser complains: %s %s", e.Entry.Text, e.Entry.URL)
}

func (b browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// text evaluates a script to a string.
func (b browser) text(script string) string {
	b.t.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+script+")"))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b browser) until(what, script string) {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// A script that runs while the page navigates has no answer.
		if said, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+script+")")); err == nil && said == "true" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not in time: %s; the page says\n%s", what, b.text("document.body.innerText"))
		}
		<-tick.C
	}
}

// press types a character whose key the page may keep to itself.
func (b browser) press(char, code string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Text: char, Key: char, Code: code}); err != nil {
		b.t.Fatal(err)
	}
}

func (b browser) wide(px int64) chromedp.Action[chromedp.Void] {
	return chromedp.EmulateViewport(px, height)
}

func (b browser) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// sights is a world in which there is something to see: policies in order, one paused, one that cannot be rotated.
func sights(t *testing.T) (w *world, url string) {
	t.Helper()
	w = newWorld(t)
	file := policies("dubbing", "narration", "tts-prod")
	file = strings.Replace(file, "max_age: 30h", "timezone: Europe/Oslo, labels: {team: studio}", 1)
	file += "  - {name: agents, service_account: svcacc_gone, schedule: '0 3 * * 1', permissions: all, sink: {path: app/agents}}\n" +
		"  - {name: archive, service_account: svcacc_a, schedule: '0 3 1 * *', mode: paused, permissions: all, sink: {path: app/archive}}\n"
	w.Write(w.PolicyFile, file)
	d := w.build(nil)
	url, _ = w.run(d)
	eventually(t, "keys and an error", func() bool {
		v := ViewOf(d.rotator.Snapshot())
		return v.Policies[0].State == "error" && v.Policies[2].State == "ok" && v.Policies[3].State == "ok" && v.Policies[4].State == "ok" && d.rotator.Ready() == nil
	})
	return w, url
}

const names = `[...document.querySelectorAll(".list tbody .c-policy")].map(e => e.textContent).join()`

func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	_, url := sights(t)
	b := newBrowser(t)
	b.do(b.wide(1280), chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#policy-tts-prod")))
	if got := b.text(names); got != "agents,archive,dubbing,narration,tts-prod" {
		t.Errorf("in the order %s", got)
	}
	if got := b.text(`document.querySelector("#policy-agents").className + document.querySelectorAll("#attention li").length + document.querySelector("#attention li").innerText.replace(/\s+/g, " ")`); !strings.HasPrefix(got, "error attention1agents workspace default has no service account svcacc_gone") {
		t.Errorf("it says %s", got)
	}
	if got := b.text(`document.querySelector("#attention li > a:last-child").href`); got != rotationFailing.Runbook() && got != noFirstKey.Runbook() {
		t.Errorf("the runbook is %s", got)
	}
	if got := b.text(`document.querySelector("#policy-dubbing .c-next time").title + document.querySelector("#policy-agents .c-next").innerText`); !strings.HasSuffix(got, "Europe/Oslonone: needs a decision") {
		t.Errorf("the next rotations are %s", got)
	}
	if got := b.text(`document.querySelector("#policy-tts-prod .c-age").textContent`); !strings.HasSuffix(got, "of 1d6h allowed") {
		t.Errorf("the age of tts-prod's key: %s", got)
	}
	b.press("/", "Slash")
	b.do(chromedp.KeyEvent("NARR"))
	b.until("found with the keyboard", names+` === "narration" && document.activeElement.name === "q" && location.search === "?q=NARR"`)
	b.do(chromedp.Navigate(url+"/?group=label:team"), chromedp.WaitVisible(chromedp.CSS(".group")))
	if got := b.text(`[...document.querySelectorAll(".list tbody th")].map(e => e.textContent).join()`); got != "studio 1,dubbing,without team 4, 1 in need of attention,agents,archive,narration,tts-prod" {
		t.Errorf("grouped by team: %s", got)
	}
	b.do(chromedp.Navigate(url + "/?state=paused"))
	if got := b.text(names); got != "archive" {
		t.Errorf("paused: %s", got)
	}
}

// TestTwentyPoliciesAreInSight, with four that need attention above them, and the head of the table stays there.
func TestTwentyPoliciesAreInSight(t *testing.T) {
	t.Parallel()
	url := shows(t, fleet(t, 200, time.Now()))
	b := newBrowser(t)
	b.do(b.wide(1280), chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#list")))
	const inSight = `[...document.querySelectorAll(".list tbody tr")].filter(e => e.getBoundingClientRect().bottom <= innerHeight).length`
	if got := b.text(inSight + ` + " " + document.querySelectorAll("#attention li").length`); len(got) < 4 || got < "20 5" {
		t.Errorf("%s: fewer than 20 policies in sight", got)
	}
	b.do(chromedp.Evaluate[chromedp.Void](`scrollTo(0, 1000)`))
	b.until("a head that stays", `scrollY > 900 && document.querySelector(".list thead th").getBoundingClientRect().top === 0`)
	b.do(chromedp.Click(chromedp.CSS(".list thead .c-age a")), chromedp.WaitVisible(chromedp.CSS(`.c-age[aria-sort="descending"]`)))
	b.do(chromedp.Click(chromedp.CSS(".list thead .c-age a")), chromedp.WaitVisible(chromedp.CSS(`.c-age[aria-sort="ascending"]`)))
	b.do(chromedp.Navigate(url+"/?group=workspace"), chromedp.WaitVisible(chromedp.CSS(".group")))
	if got := b.text(`document.querySelector(".group").innerText`); !strings.HasPrefix(got, "emea-00 100, ") {
		t.Errorf("the first group is %s", got)
	}
	b.do(chromedp.Click(chromedp.CSS(".tabs .attention")), chromedp.WaitVisible(chromedp.CSS(`.tabs .attention[aria-current]`)))
	if got := b.text(`location.search + " " + document.querySelectorAll(".list tbody .attention").length`); !strings.HasPrefix(got, "?group=workspace&state=attention ") || strings.HasSuffix(got, " 0") {
		t.Errorf("those that need attention: %s", got)
	}
	b.do(b.wide(390), chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#list")))
	const heads = `[...document.querySelectorAll(".list thead th")].filter(e => e.checkVisibility())`
	if got := b.text(heads + `.filter(e => e.scrollWidth > e.clientWidth).length + " of " + ` + heads + `.length + ", " + document.querySelector(".list tbody .c-workspace").innerText`); got != "0 of 7, emea-00" {
		t.Errorf("on a phone, heads of the table that cover others, and the first workspace: %s", got)
	}
}

func TestStatusPageOfManyPoliciesInABrowser(t *testing.T) {
	t.Parallel()
	url := shows(t, fleet(t, 10_000, time.Now()))
	b := newBrowser(t)
	b.do(chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#list")))
	const rows = `document.querySelectorAll(".list tbody tr").length`
	if got := b.text(rows + ` + document.querySelector("#summary").textContent`); got != "1001 to 100 of 10000" {
		t.Errorf("it says %s", got)
	}
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=q]`), "-9999"))
	b.until("filtered", rows+` === 1 && document.querySelector(".list tbody .c-policy").textContent.endsWith("-9999")`)
	b.do(chromedp.Navigate(url+"/?page=100"), chromedp.WaitVisible(chromedp.CSS("#policy-tts-studio-9990")))
}

func TestStatusPageWithoutJavaScript(t *testing.T) {
	t.Parallel()
	_, url := sights(t)
	b := newBrowser(t, chromedp.Flag("blink-settings", "scriptEnabled=false"))
	b.do(chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#policy-tts-prod")))
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=q]`), "narr"+kb.Enter))
	b.until("filtered by the daemon", `location.search.startsWith("?q=narr&") && document.querySelectorAll(".list tbody tr").length === 1`)
	b.do(chromedp.Click(chromedp.CSS(".list tbody a")), chromedp.WaitVisible(chromedp.CSS("#history")))
	// until, since Chromium shows the page before it has read the style sheet that hides the buttons
	b.until("the commands, and no button that can do nothing", `([...document.querySelectorAll("#rotate, .copy")].filter(e => e.checkVisibility()).length + document.querySelector(".commands").innerText).startsWith("0rekeyd plan narration")`)
}

func TestARotationIsAskedForAndSeenInABrowser(t *testing.T) {
	t.Parallel()
	w, url := sights(t)
	b := newBrowser(t)
	b.do(chromedp.Navigate(url+"/policies/tts-prod"), chromedp.WaitVisible(chromedp.CSS("#rotate")))
	// With the keyboard alone: the skip link comes first, the button opens the dialog, Escape closes it.
	b.do(chromedp.KeyEvent(kb.Tab))
	if got := b.text(`document.activeElement.textContent`); got != "Skip to the content" {
		t.Errorf("the first stop is %q", got)
	}
	for i := 0; b.text(`document.activeElement.id`) != "rotate"; i++ {
		if i > 40 {
			t.Fatal("the button is not reached with the tab key")
		}
		b.do(chromedp.KeyEvent(kb.Tab))
	}
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#dialog")), chromedp.KeyEvent(kb.Escape))
	b.until("closed, with the focus where it was", `!document.querySelector("#dialog").open && document.activeElement.id === "rotate"`)
	key := b.text(`document.querySelector("#facts .id").textContent`)
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#dialog")), chromedp.KeyEvent("not-the-admin-token"), chromedp.KeyEvent(kb.Enter))
	b.until("refused", `document.querySelector("#outcome").textContent.includes("REKEYD_ADMIN_TOKEN") && document.querySelector("[name=token]").value === ""`)
	b.do(chromedp.KeyEvent(adminToken), chromedp.KeyEvent(kb.Enter))
	b.until("another key, without a reload", fmt.Sprintf(`((k) => k && k !== %q)(document.querySelector("#facts .id")?.textContent)`, key))
	b.until("the old key", fmt.Sprintf(`((e) => e.includes(%q) && e.includes("disabled"))(document.querySelector("#old").textContent)`, key))
	b.until("the focus where it was", `document.activeElement.id === "rotate"`)
	if got := b.text(`localStorage.length + sessionStorage.length + document.cookie + document.querySelector("[name=token]").value`); got != "0" {
		t.Errorf("something was stored: %s", got)
	}
	b.do(chromedp.Navigate(url + "/"))
	if err := w.Sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}}); err != nil {
		t.Fatal(err)
	}
	b.until("an outage", `document.querySelector("#attention").textContent.includes("Workspace default")`)
}

// TestCopying: a click on the button marks the command, and what is marked is left alone by the next refresh.
func TestCopying(t *testing.T) {
	t.Parallel()
	url := shows(t, fleet(t, 3, time.Now()))
	b := newBrowser(t)
	b.do(chromedp.Navigate(url+"/policies/tts-speech-0000"), chromedp.WaitVisible(chromedp.CSS(".copy")), chromedp.Click(chromedp.CSS(".copy")))
	b.until("marked", `getSelection().toString().trim() === "rekeyd plan tts-speech-0000"`)
	b.do(chromedp.Evaluate[chromedp.Void](`getSelection().selectAllChildren(document.querySelector("#facts .id"))`))
	before := b.text(`performance.getEntriesByType("resource").length`)
	b.until("refreshed twice", fmt.Sprintf(`performance.getEntriesByType("resource").length >= %s + 2`, before))
	if got := b.text(`getSelection().toString()`); len(got) != 32 {
		t.Errorf("the key's id is no longer marked, but %q", got)
	}
}

// TestAxe finds no violation of the rules of WCAG 2.2 AA and of good practice, on each view at each width, light and dark.
func TestAxe(t *testing.T) { // alone, as TestScreenshots
	now := time.Now()
	b := newBrowser(t)
	localtest.NPM(b.ctx, t, "axetest")
	axe, err := os.ReadFile("axetest/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	all, empty, grounds := views(t, fleet(t, 100, now), now), shows(t, rotator.Snapshot{}), map[string]bool{}
	all["empty"], all["empty calendar"] = empty+"/", empty+"/calendar"
	for name, address := range all {
		b.do(chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS("main")), chromedp.Evaluate[chromedp.Void](string(axe)))
		check := func(scheme string, px int64) {
			if got := b.text(`document.documentElement.scrollWidth`); got != fmt.Sprint(px) {
				t.Errorf("%s: %d px wide, it needs %s", name, px, got)
			}
			found, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](violations, chromedp.EvalAwaitPromise))
			if err != nil || found != "" {
				t.Errorf("%s, %s, %d px: %v\n%s", name, scheme, px, err, found)
			}
			grounds[b.text(`getComputedStyle(document.body).backgroundColor`)] = true
		}
		b.looks(check)
		if name == "failing" { // the dialog, with a token that is refused
			b.do(chromedp.Click(chromedp.CSS("#rotate")), chromedp.WaitVisible(chromedp.CSS("#dialog")), chromedp.KeyEvent("not-the-admin-token"), chromedp.KeyEvent(kb.Enter))
			b.until("refused", `document.querySelector("#outcome").textContent.includes("REKEYD_ADMIN_TOKEN")`)
			b.looks(check)
		}
	}
	if len(grounds) != 2 {
		t.Errorf("light and dark are the same: %v", grounds)
	}
}

// troubled shows a snapshot with all that can be wrong beside its policies.
func troubled(t *testing.T, s rotator.Snapshot) (url string) {
	t.Helper()
	now := time.Now()
	s.StoreDown = errors.New("reading the ledger: Vault is sealed; unseal it")
	s.Workspaces = append(slices.Clone(s.Workspaces), rotator.WorkspaceStatus{Name: "apac", Err: errors.New("listing: HTTP 503"), LastReconcile: now.Add(-time.Minute), LastTry: now},
		rotator.WorkspaceStatus{Name: "full", Accounts: make([]elevenlabs.ServiceAccount, accountsNear), LastReconcile: now, LastTry: now})
	server := servedOf(t, s)
	behind := -10 * time.Minute
	server.skew = func() rotator.Skew {
		return rotator.Skew{Store: &behind, Workspaces: map[string]time.Duration{"full": behind}}
	}
	server.cfg.Ready = func(context.Context) error { return s.StoreDown }
	server.cfg.ReloadFault = func() string { return "policies.yaml: line 3: no such field: polices" }
	server.cfg.TokenEnding = func(now time.Time) (time.Time, bool) { return now.Add(5 * time.Minute), true }
	server.cfg.EventLost = func() (time.Time, string) {
		return now.Add(-5 * time.Minute), "sending an event: the receiver answers 500"
	}
	return pagesOf(t, server)
}

// violations are axe's findings, a line each.
const violations = `axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], resultTypes: ["violations"]}).then(r =>
	r.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.html.slice(0, 120) + " " + n.failureSummary)).join("\n"))`
