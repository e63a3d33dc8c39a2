package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestThroughput rotates 1,000 keys that are due at once, with rekeyd and in other ways. rekeyd and the bare loop take
// turns, since machines are faster at one time than at another.
func TestThroughput(t *testing.T) {
	if !asked(t) {
		return
	}
	for _, run := range []struct {
		latency time.Duration
		apart   bool // the remotes have a processor of their own
	}{{0, false}, {0, true}, {20 * time.Millisecond, false}} {
		w := newWorld(t, vaulttest.Start(t))
		w.setLatency(run.latency)
		where := "on the same processors"
		if run.apart {
			where = "on a processor of their own"
			apart(t)
		}
		bare, ours := w.race(5)
		l := newLoop(t, w)
		figures := []figure{median(bare), median(ours), l.figure("create and write, nothing else", l.two, "2"),
			w.shell("shell script", 1, 60), w.shell("shell script, xargs -P 8", 8, 200)}
		t.Logf("ElevenLabs answers after %s, it and Vault are %s, %d keys due at once, concurrency %d\n\n%s\nof the bare loop in each round: %s",
			run.latency, where, accounts, concurrency, table(figures), rounds(bare, ours))
		together(t)
	}
}

// race has rekeyd rotate everything at each full minute, and the bare loop once that is over and retired.
func (w *world) race(rounds int) (bare, ours []figure) {
	w.t.Helper()
	l := newLoop(w.t, w)
	d, metrics := w.daemon()
	for due, warm := fullMinute(20*time.Second), 3; len(ours) < rounds; due = due.Add(time.Minute) {
		f := w.rotateAll(metrics, due)
		sleepUntil(due.Add(overlap + 20*time.Second))
		l.learn()
		if warm > 0 { // Vault keeps ten versions of a document, and a write costs it more the more there are: both begin with ten
			warm--
			l.run(l.eight)
			l.run(l.eight)
			l.run(l.clean)
			continue
		}
		ours, bare = append(ours, f), append(bare, l.figure("bare loop", l.eight, "8"))
	}
	if status := d.Stop(); status != 0 {
		w.t.Errorf("rekeyd ended with %d: %s", status, w.said())
	}
	return bare, ours
}

// TestColdStart starts rekeyd with an empty ledger and 1,000 policies, again and again in new folders, in turn with the bare loop.
func TestColdStart(t *testing.T) {
	if !asked(t) {
		return
	}
	for _, latency := range []time.Duration{0, 20 * time.Millisecond} {
		w := newWorld(t, vaulttest.Start(t))
		w.setLatency(latency)
		l := newLoop(t, w)
		var bare, ours []figure
		for round := range 7 {
			folder := fmt.Sprint("cold-", round)
			ours = append(ours, w.coldStart(folder))
			l.learn()
			bare = append(bare, l.figure("bare loop", l.first(folder), "11"))
		}
		t.Logf("ElevenLabs answers after %s, %d first keys from a cold start, concurrency %d\n\n%s\nof the bare loop in each round: %s",
			latency, accounts, concurrency, table([]figure{median(bare), median(ours)}), rounds(bare, ours))
	}
}

// coldStart times from the start of the process.
func (w *world) coldStart(folder string) figure {
	w.t.Helper()
	w.configure("0 0 1 1 *", folder)
	used, begun := cpu(), time.Now()
	d, metrics := w.start()
	w.await(accounts)
	spent := cpuSince(used, "rekeyd", "vault", "elevensim")
	calls := sum(w.scrape(metrics), `rekeyd_requests_total`) / accounts
	w.t.Logf("calls of %d first keys: %s", accounts, callsByKind("", w.scrape(metrics)))
	if status := d.Stop(); status != 0 {
		w.t.Errorf("rekeyd ended with %d: %s", status, w.said())
	}
	return figureOf("rekeyd", w.published(w.t.Context(), begun), fmt.Sprintf("%.2f", calls), spent)
}

// fullMinute returns the first one that is at least so far away.
func fullMinute(away time.Duration) time.Time {
	return time.Now().Add(away).Truncate(time.Minute).Add(time.Minute)
}

// rotateAll looks on while everything that is due is rotated.
func (w *world) rotateAll(metrics string, due time.Time) figure {
	w.t.Helper()
	sleepUntil(due.Add(-2 * time.Second))
	before, done := w.scrape(metrics), w.rotated()
	sleepUntil(due)
	used := cpu()
	w.await(done + accounts)
	spent, after := cpuSince(used, "rekeyd", "vault", "elevensim"), w.scrape(metrics)
	w.t.Logf("calls of %d rotations: %s", accounts, callsByKind(before, after))
	calls := (sum(after, `rekeyd_requests_total`) - sum(before, `rekeyd_requests_total`)) / accounts
	return figureOf("rekeyd", w.published(w.t.Context(), due), fmt.Sprintf("%.2f", calls), spent)
}

// median returns the figure in the middle of those in order of their speed.
func median(figures []figure) figure {
	ordered := slices.SortedFunc(slices.Values(figures), func(a, b figure) int { return int(a.perSecond - b.perSecond) })
	return ordered[len(ordered)/2]
}

func rounds(bare, ours []figure) string {
	var text string
	for i := range ours {
		text += fmt.Sprintf("%.2f ", ours[i].perSecond/bare[i].perSecond)
	}
	return text
}

func sleepUntil(at time.Time) {
	timer := time.NewTimer(time.Until(at))
	<-timer.C
}

// shell runs rotate.sh for so many accounts, so many at a time.
func (w *world) shell(name string, parallel, n int) figure {
	w.t.Helper()
	script, err := filepath.Abs("rotate.sh")
	if err != nil {
		w.t.Fatal(err)
	}
	bin := w.t.TempDir()
	if err := os.Symlink(vaulttest.Binary(w.t), filepath.Join(bin, "vault")); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), "sh", "-c", fmt.Sprintf("seq -f svcacc_%%.0f 0 %d | xargs -n 1 -P %d %s", n-1, parallel, script))
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + w.t.TempDir(), "SIM=" + w.sim.URL, "ADMIN_KEY=" + w.adminKey,
		"VAULT_ADDR=" + w.vault.Addr, "VAULT_TOKEN=" + w.token}
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return figure{name: name, perSecond: float64(n) / time.Since(begun).Seconds(), calls: "4"}
}
