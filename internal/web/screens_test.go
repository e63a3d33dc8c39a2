package web

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// widths are those of a desk, a tablet and a phone.
func widths() []int64 { return []int64{1280, 768, 390} }

// views are pages of one fleet, by name.
func views(t *testing.T, s rotator.Snapshot, now time.Time) map[string]string {
	t.Helper()
	one := func(is func(rotator.PolicyStatus) bool) string {
		return "/policies/" + s.Policies[max(slices.IndexFunc(s.Policies, is), 0)].Policy.Name
	}
	in := func(state plan.State) string {
		return one(func(p rotator.PolicyStatus) bool { return p.State == state })
	}
	return map[string]string{
		"list": "/", "groups": "/?group=label:team&state=attention", "filtered": "/?workspace=emea-00&label=team%3Dspeech&q=prod&sort=-age", "nothing": "/?q=nothing&state=bad",
		"policy": "/policies/" + listed(t, s, "state=attention", now).names()[0],
		"drift":  one(func(p rotator.PolicyStatus) bool { return len(p.Drift) > 0 && len(p.Retiring) > 0 }),
		"error":  in(plan.StateError), "failing": in(plan.StateFailing), "throttled": in(plan.StateThrottled), "paused": in(plan.StatePaused),
		"calendar": "/calendar", "hour": "/calendar?sort=bad&hour=" + now.UTC().Format(hourLayout), "no runs": "/calendar?q=nothing",
	}
}

// looks has a page at each width, light and dark.
func (b browser) looks(at func(scheme string, px int64)) {
	b.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, px := range widths() {
			b.do(b.wide(px))
			at(scheme, px)
		}
	}
}

// TestScreenshots draws every view for 3, 200 and 10,000 policies into the folder REKEYD_SCREENSHOTS.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("REKEYD_SCREENSHOTS")
	if dir == "" {
		t.Skip("REKEYD_SCREENSHOTS names no folder to draw into")
	}
	now := time.Now()
	b := newBrowser(t)
	for _, n := range []int{3, 200, 10_000} {
		s := fleet(t, n, now)
		url := shows(t, s)
		for name, path := range views(t, s, now) {
			for _, scheme := range []string{"light", "dark"} {
				b.scheme(scheme)
				for _, px := range widths() {
					b.do(b.wide(px), chromedp.Navigate(url+path), chromedp.WaitVisible(chromedp.CSS("main")))
					image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
					if err != nil {
						t.Fatal(err)
					}
					file := filepath.Join(dir, fmt.Sprintf("%s-%d-%s-%d.png", name, n, scheme, px))
					if err := os.WriteFile(file, image, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}
