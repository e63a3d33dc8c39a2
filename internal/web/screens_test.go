package web

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
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

const height = 800

// views are the addresses of pages of one fleet, by name.
func views(t *testing.T, s rotator.Snapshot, now time.Time) map[string]string {
	t.Helper()
	url := shows(t, s)
	one := func(is func(rotator.PolicyStatus) bool) string {
		return url + "/policies/" + s.Policies[max(slices.IndexFunc(s.Policies, is), 0)].Policy.Name
	}
	in := func(state plan.State) string {
		return one(func(p rotator.PolicyStatus) bool { return p.State == state })
	}
	return map[string]string{
		"list": url + "/", "groups": url + "/?group=label:team&state=attention", "filtered": url + "/?workspace=emea-00&label=team%3Dspeech&q=prod&sort=-age",
		"nothing": url + "/?q=nothing&state=bad", "trouble": troubled(t, s) + "/?state=attention",
		"policy": url + "/policies/" + listed(t, s, "state=attention", now).names()[0],
		"drift":  one(func(p rotator.PolicyStatus) bool { return len(p.Drift) > 0 && len(p.Retiring) > 0 }),
		"error":  in(plan.StateError), "failing": in(plan.StateFailing), "throttled": in(plan.StateThrottled), "paused": in(plan.StatePaused),
		"calendar": url + "/calendar", "hour": url + "/calendar?sort=bad&hour=" + now.UTC().Format(hourLayout), "no-runs": url + "/calendar?q=nothing",
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

// TestScreenshots draws every view for 3, 200 and 10,000 policies, into the folder REKEYD_SCREENSHOTS where that is set.
// It runs alone: its browser would keep others waiting beyond their deadlines.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("REKEYD_SCREENSHOTS")
	switch {
	case dir == "" && os.Getenv("CI") == "":
		t.Skip("REKEYD_SCREENSHOTS names no folder to draw into")
	case dir == "":
		dir = t.TempDir()
	}
	now := time.Now()
	b := newBrowser(t)
	for _, n := range []int{3, 200, 10_000} {
		for name, address := range views(t, fleet(t, n, now), now) {
			b.do(chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS("main")))
			b.looks(func(scheme string, px int64) {
				drawn, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				file := fmt.Sprintf("%s-%d-%s-%d.png", name, n, scheme, px)
				if fault := faultOf(drawn, int(px), scheme == "dark"); fault != "" {
					t.Errorf("%s: %s", file, fault)
				}
				if err := os.WriteFile(filepath.Join(dir, file), drawn, 0o600); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// faultOf says what is wrong with a drawing: its size, its ground, or that there is nothing on it.
func faultOf(drawn []byte, px int, dark bool) string {
	picture, err := png.Decode(bytes.NewReader(drawn))
	if err != nil {
		return err.Error()
	}
	if size := picture.Bounds().Size(); size != image.Pt(px, height) {
		return fmt.Sprintf("it is %s large", size)
	}
	ground, colours := picture.At(px-2, height/2), map[color.Color]bool{}
	if r, g, b, _ := ground.RGBA(); dark != (r+g+b < 3<<15) {
		return fmt.Sprintf("its ground is %v", ground)
	}
	for y := range height {
		colours[picture.At(px/8, y)] = true
	}
	if len(colours) < 5 {
		return "there is nothing on it"
	}
	return ""
}

func TestFaultyScreenshotsAreFound(t *testing.T) {
	t.Parallel()
	drawing := func(width int, ground color.Gray, lines int) []byte {
		picture := image.NewGray(image.Rect(0, 0, width, height))
		draw.Draw(picture, picture.Bounds(), image.NewUniform(ground), image.Point{}, draw.Src)
		for y := range lines {
			picture.SetGray(390/8, y, color.Gray{Y: uint8(40 * y)})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, picture); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	white := color.Gray{Y: 255}
	if fault := faultOf(drawing(390, white, 5), 390, false); fault != "" {
		t.Errorf("a good one: %s", fault)
	}
	for what, c := range map[string]struct {
		drawn []byte
		dark  bool
	}{"no picture": {[]byte("png"), false}, "too wide": {drawing(391, white, 5), false}, "white in the dark": {drawing(390, white, 5), true},
		"black in the light": {drawing(390, color.Gray{}, 5), false}, "empty": {drawing(390, white, 0), false}} {
		if faultOf(c.drawn, 390, c.dark) == "" {
			t.Errorf("%s: nothing is found wrong", what)
		}
	}
}
