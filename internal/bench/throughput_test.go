package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestThroughput rotates 1,000 keys that are due at once, with rekeyd and in other ways.
func TestThroughput(t *testing.T) {
	if !asked(t) {
		return
	}
	for _, latency := range []time.Duration{0, 20 * time.Millisecond} {
		w := newWorld(t, vaulttest.Start(t))
		w.setLatency(latency)
		l := newLoop(t, w, concurrency)
		for range 5 { // Vault keeps ten versions of a document, and a write costs it more the more there are
			l.run(l.eight)
		}
		before := l.figure("bare loop, before", l.eight, "8")
		ours := w.rotateAll()
		after := l.figure("bare loop, after", l.eight, "8")
		bare := (before.perSecond + after.perSecond) / 2
		least := l.figure("create and write, nothing else", l.two, "2")
		figures := []figure{before, ours, after, least, w.shell("shell script", 1, 60), w.shell("shell script, xargs -P 8", 8, 200)}
		t.Logf("ElevenLabs answers after %s, %d keys due at once, concurrency %d\n\n%s", latency, accounts, concurrency, table(figures, bare))
	}
}

// rotateAll lets a daemon run over a full minute, at which everything is due.
func (w *world) rotateAll() figure {
	w.t.Helper()
	d, metrics := w.daemon()
	for minute := 1; ; {
		due := time.Now().Truncate(time.Minute).Add(time.Minute)
		before, used := w.scrape(metrics), cpu()
		// Whatever the last full minute began must be over, and the ledger's entries must have their ten versions as
		// well: a key that is made and retired takes four.
		if time.Until(due) < 10*time.Second || minute <= 2 {
			sleepUntil(due.Add(45 * time.Second))
			minute++
			continue
		}
		done := int(sum(before, `rekeyd_rotations_total\{.*result="success"`))
		sleepUntil(due)
		w.await(metrics, done+accounts)
		spent, after := cpuSince(used, "rekeyd", "vault", "elevensim"), w.scrape(metrics)
		took := w.published(w.t.Context(), due)
		w.t.Logf("calls of %d rotations: %s", accounts, callsByKind(before, after))
		calls := fmt.Sprintf("%.2f", (sum(after, `rekeyd_requests_total`)-sum(before, `rekeyd_requests_total`))/accounts)
		if status := d.Stop(); status != 0 {
			w.t.Errorf("rekeyd ended with %d: %s", status, d.Stderr.String())
		}
		return figureOf("rekeyd", took, calls, spent)
	}
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
