package web

import (
	"context"
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/localtest"
)

// browser is one tab of a headless Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the tab in it
}

func newBrowser(t *testing.T) browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("chromium is not installed, so the status page is not tested")
	case err != nil:
		t.Skip("chromium is not installed, so the status page is not tested")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.WSURLReadTimeout(time.Minute), chromedp.WindowSize(1280, 800))...)
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

func (b browser) wide(px int64) chromedp.Action[chromedp.Void] {
	return chromedp.EmulateViewport(px, 800)
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
	file = strings.Replace(file, "max_age: 30h", "timezone: Europe/Oslo", 1)
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

func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	_, url := sights(t)
	b := newBrowser(t)
	b.do(b.wide(1280), chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#rotate-tts-prod")))
	const names = `[...document.querySelectorAll("tbody th")].map(e => e.firstChild.textContent).join()`
	if got := b.text(names); got != "agents,archive,dubbing,narration,tts-prod" {
		t.Errorf("in the order %s", got)
	}
	if got := b.text(`document.querySelector("#policy-agents").className + document.querySelector("#summary").textContent`); got != "attentionPolicies: 5. Need attention: 1." {
		t.Errorf("it says %s", got)
	}
	if got := b.text(`document.querySelector("#policy-dubbing").innerText`); !strings.Contains(got, "Europe/Oslo") || !strings.Contains(got, "until the next rotation") {
		t.Errorf("dubbing: %s", got)
	}
	if got := b.text(`document.querySelector("#policy-tts-prod").innerText`); !strings.Contains(got, "of 1d6h allowed") {
		t.Errorf("tts-prod: %s", got)
	}
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=q]`), "NARR"))
	b.until("filtered by text", names+` === "narration" && document.activeElement.name === "q"`)
	b.do(chromedp.Navigate(url + "/?state=paused"))
	if got := b.text(names); got != "archive" {
		t.Errorf("paused: %s", got)
	}
	for _, px := range []int64{360, 800, 1280} {
		b.do(b.wide(px), chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#rotate-tts-prod")))
		if got := b.text(`document.documentElement.scrollWidth`); got != fmt.Sprint(px) {
			t.Errorf("%d px wide, it needs %s", px, got)
		}
		if got := b.text(`document.querySelectorAll("main, header, footer, [role=search], [role=table] [role=rowheader]").length`); got != "9" {
			t.Errorf("%d px wide, %s landmarks and row headers", px, got)
		}
	}
}

func TestStatusPageOfManyPoliciesInABrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Write(w.PolicyFile, localtest.ManyPolicies(10_000))
	server := httptest.NewServer(w.build(map[string]string{"REKEYD_LOG_LEVEL": "error"}).handler(true))
	t.Cleanup(server.Close)
	b := newBrowser(t)
	b.do(chromedp.Navigate(server.URL+"/"), chromedp.WaitVisible(chromedp.CSS("#rotate-policy-0")))
	const rows = `document.querySelectorAll("tbody tr").length`
	if got := b.text(rows + ` + document.querySelector("#summary").textContent`); got != "100Policies: 10000. Need attention: 0." {
		t.Errorf("it says %s", got)
	}
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=q]`), "y-9999"))
	b.until("filtered", rows+` === 1 && document.querySelector("#policy-policy-9999") !== null`)
	t.Logf("it was filtered and shown in %s ms", b.text(`performance.getEntriesByType("resource").filter(e => e.name.includes("page.json")).at(-1).duration`))
	b.do(chromedp.Navigate(server.URL+"/?page=100"), chromedp.WaitVisible(chromedp.CSS("#rotate-policy-9999")))
}

func TestStatusPageWithoutJavaScript(t *testing.T) {
	t.Parallel()
	_, url := sights(t)
	b := newBrowser(t)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#policy-tts-prod")))
	if got := b.text(`document.querySelector("#rotate-tts-prod").checkVisibility()`); got != "false" {
		t.Error("a button that can do nothing is shown")
	}
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=q]`), "narr"+kb.Enter))
	b.until("filtered by the daemon", `location.search === "?q=narr&state=" && document.querySelectorAll("tbody tr").length === 1`)
}

func TestARotationIsAskedForAndSeenInABrowser(t *testing.T) {
	t.Parallel()
	w, url := sights(t)
	b := newBrowser(t)
	b.do(chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#rotate-tts-prod")))
	// With the keyboard alone: the skip link comes first, the button opens the dialog, Escape closes it.
	b.do(chromedp.KeyEvent(kb.Tab))
	if got := b.text(`document.activeElement.textContent`); got != "Skip to the policies" {
		t.Errorf("the first stop is %q", got)
	}
	for i := 0; b.text(`document.activeElement.id`) != "rotate-tts-prod"; i++ {
		if i > 20 {
			t.Fatal("the button is not reached with the tab key")
		}
		b.do(chromedp.KeyEvent(kb.Tab))
	}
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#dialog")), chromedp.KeyEvent(kb.Escape))
	b.until("closed, with the focus where it was", `!document.querySelector("#dialog").open && document.activeElement.id === "rotate-tts-prod"`)
	key := b.text(`document.querySelector("#policy-tts-prod td:nth-child(3) small").textContent`)
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#dialog")), chromedp.KeyEvent("not-the-admin-token"), chromedp.KeyEvent(kb.Enter))
	b.until("refused", `document.querySelector("#outcome").textContent.includes("REKEYD_ADMIN_TOKEN") && document.querySelector("[name=token]").value === ""`)
	b.do(chromedp.KeyEvent(adminToken), chromedp.KeyEvent(kb.Enter))
	b.until("another key, without a reload", fmt.Sprintf(`((k) => k && k !== %q)(document.querySelector("#policy-tts-prod td:nth-child(3) small")?.textContent)`, key))
	b.until("the old key", fmt.Sprintf(`document.querySelector("#policy-tts-prod td:nth-child(5)").textContent.includes(%q)`, key+" works for another"))
	b.until("the focus where it was", `document.activeElement.id === "rotate-tts-prod"`)
	if got := b.text(`localStorage.length + sessionStorage.length + document.cookie + document.querySelector("[name=token]").value`); got != "0" {
		t.Errorf("something was stored: %s", got)
	}
	if err := w.Sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}}); err != nil {
		t.Fatal(err)
	}
	b.until("an outage", `document.querySelector("#faults").textContent.includes("Workspace default")`)
}

// colors is the text and ground of each thing with words of its own.
const colors = `[...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
	let g = e; while (g && getComputedStyle(g).backgroundColor === "rgba(0, 0, 0, 0)") g = g.parentElement;
	const numbers = (c) => c.match(/[\d.]+/g).slice(0, 3).map(Number);
	return {Words: e.textContent.trim().slice(0, 40), Ink: numbers(getComputedStyle(e).color), Ground: g ? numbers(getComputedStyle(g).backgroundColor) : [255, 255, 255]};
})`

type painted struct {
	Words       string
	Ink, Ground [3]float64
}

func TestContrastInABrowser(t *testing.T) {
	t.Parallel()
	w, url := sights(t)
	if err := w.Sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}}); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	grounds := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.do(chromedp.Navigate(url+"/"), chromedp.WaitVisible(chromedp.CSS("#rotate-tts-prod")))
		b.until("an outage", `document.querySelector("#faults").textContent.includes("Workspace default")`)
		b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#rotate-tts-prod").click()`), chromedp.WaitVisible(chromedp.CSS("#dialog")))
		all, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]painted](colors))
		if err != nil {
			t.Fatal(err)
		}
		if len(all) < 40 {
			t.Errorf("%s: only %d texts", scheme, len(all))
		}
		for _, c := range all {
			if ratio := contrast(c.Ink, c.Ground); ratio < 4.5 {
				t.Errorf("%s: %q has a contrast of %.2f", scheme, c.Words, ratio)
			}
		}
		grounds[b.text(`getComputedStyle(document.body).backgroundColor`)] = true
	}
	if len(grounds) != 2 {
		t.Errorf("light and dark are the same: %v", grounds)
	}
	if got := contrast([3]float64{0, 0, 0}, [3]float64{255, 255, 255}); got != 21 {
		t.Errorf("black on white is %.2f", got)
	}
}

// contrast is that of WCAG 2: 1 to 21.
func contrast(a, b [3]float64) float64 {
	luminance := func(c [3]float64) float64 {
		sum := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			v := c[i] / 255
			if v <= 0.04045 {
				sum += weight * v / 12.92
			} else {
				sum += weight * math.Pow((v+0.055)/1.055, 2.4)
			}
		}
		return sum
	}
	x, y := luminance(a)+0.05, luminance(b)+0.05
	return max(x, y) / min(x, y)
}
