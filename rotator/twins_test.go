package rotator_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// doubling is a proxy that sends a create twice, and passes the second answer on; with hideID, without the key's id.
type doubling struct {
	http.RoundTripper

	hideID bool
}

func (d doubling) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost {
		return d.RoundTripper.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	again := r.Clone(r.Context())
	r.Body, again.Body = io.NopCloser(bytes.NewReader(body)), io.NopCloser(bytes.NewReader(body))
	if resp, err := d.RoundTripper.RoundTrip(r); err == nil {
		_ = resp.Body.Close()
	}
	resp, err := d.RoundTripper.RoundTrip(again)
	if err == nil && d.hideID {
		text, _ := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(strings.NewReader(strings.Replace(string(text), `"key_id"`, `"something"`, 1)))
	}
	return resp, err
}

// TestACreateThatArrivedTwice: the record names the key whose secret it holds, and the other one is deleted.
func TestACreateThatArrivedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		r, stop := w.daemon(options{api: doubling{RoundTripper: w.api}}, p)
		defer stop()
		after(2*time.Hour + 3*time.Minute)
		k, _ := w.recordHolds(p)
		if id := w.record(p)["key_id"]; id != k.ID {
			t.Errorf("the record says key_id %v, and its secret is of %s", id, k.ID)
		}
		if n := len(w.alive()); n != 2 {
			t.Errorf("%d keys exist, not the current one and the one before", n)
		}
		w.mustWork(p, "after the rotation")
		w.accounted(p)
		if s := w.state(r, 0); s.State != plan.StateOK || s.Keys.Lost != 0 {
			t.Errorf("%s %s, keys %+v", s.State, s.Reason, s.Keys)
		}
	})
}

// TestATwinThatIsRefused: the account was full once the first of two creates had made its key, and the refusal of the second
// is all that is heard. The key is deleted all the same.
func TestATwinThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: 2}); err != nil {
			t.Fatal(err)
		}
		r, stop := w.daemon(options{api: doubling{RoundTripper: w.api}}, p)
		after(2*time.Hour + 30*time.Second)
		made := 0
		for _, a := range w.sim.State() {
			made += len(a.Keys)
		}
		if made < 2 { // it may be deleted by now
			t.Fatalf("%d keys were ever made, so no create was doubled", made)
		}
		stop()
		if s := w.state(r, 0); s.Failure == nil || s.Failure.Reason != ledger.FailureKeyLimit {
			t.Errorf("the failure is %+v", s.Failure)
		}
		if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: 1}); err != nil { // no further key is made
			t.Fatal(err)
		}
		r, stop = w.daemon(options{}, p)
		defer stop()
		after(3 * time.Minute)
		if n := len(w.alive()); n != 1 {
			t.Errorf("%d keys exist, not the current one alone", n)
		}
		w.mustWork(p, "with a full account")
		if s := w.state(r, 0); s.Keys.Lost != 0 {
			t.Errorf("%s %s, keys %+v", s.State, s.Reason, s.Keys)
		}
	})
}

// TestTwinsWithoutAnID: nothing tells whose the secret is, so neither is published and both are deleted.
func TestTwinsWithoutAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		first, _ := w.recordHolds(p)
		r, stop := w.daemon(options{api: doubling{w.api, true}}, p)
		after(2*time.Hour + 10*time.Second)
		stop()
		if k, _ := w.recordHolds(p); k.ID != first.ID || w.state(r, 0).Failures == 0 {
			t.Errorf("the record holds %s, and %d failures are counted", k.ID, w.state(r, 0).Failures)
		}
		_, stop = w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		w.mustWork(p, "an hour later")
		w.accounted(p)
	})
}

// lostCreate loses the answer of the first create.
type lostCreate struct {
	http.RoundTripper
	name string
}

func (l *lostCreate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost || l.name != "" {
		return l.RoundTripper.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(body), `"name":"`)
	l.name, _, _ = strings.Cut(rest, `"`)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if resp, err := l.RoundTripper.RoundTrip(r); err == nil {
		_ = resp.Body.Close()
	}
	return nil, errCut
}

// TestAnAbandonedKeyIsRememberedWhileItIsListed, for however long nobody may delete it.
func TestAnAbandonedKeyIsRememberedWhileItIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		refusing := &refusedDeletes{RoundTripper: w.api, refuse: true}
		lost := &lostCreate{RoundTripper: refusing}
		_, stop = w.daemon(options{api: lost}, p)
		defer stop()
		after(60 * time.Hour)
		refusing.set(false)
		after(24 * time.Hour)
		for _, k := range w.alive() {
			if k.Name == lost.name {
				t.Errorf("a day after deletes are allowed again, abandoned key %s exists", k.Name)
			}
		}
		after(72 * time.Hour)
		if n := len(w.entry(p).Abandoned); n != 0 {
			t.Errorf("%d abandoned rotations are remembered, whose keys are gone", n)
		}
	})
}

func (w *world) entry(p plan.Policy) *ledger.Entry {
	w.t.Helper()
	doc, err := w.store.Read(context.Background(), ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := ledger.ParseEntry(doc.JSON, p.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// TestARestoredLedgerDeletesNoKeyInUse: the backup is of the middle of a rotation, whose key readers had for an hour.
func TestARestoredLedgerDeletesNoKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := holdLater(w.api, verifying)
		_, stop := w.daemon(options{api: h}, p)
		after(2*time.Hour + 59*time.Minute)
		h.arm()
		<-h.held
		backup := w.kv.Snapshot()
		close(h.release)
		after(time.Hour)
		second, _ := w.recordHolds(p)
		if err := w.sim.AddUsage(second.ID, 1000); err != nil {
			t.Fatal(err)
		}
		stop()
		w.kv.Restore(backup)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(50 * time.Hour)
		if k := w.key(second.Secret); k.Deleted() || k.Disabled {
			t.Errorf("key %s is in use: disabled %t, deleted %t", k.ID, k.Disabled, k.Deleted())
		}
		if s := w.state(r, 0); s.Keys.Lost != 1 {
			t.Errorf("keys %+v", s.Keys)
		}
		if err := w.sim.AddUsage(second.ID, -1000); err != nil { // a billing month begins
			t.Fatal(err)
		}
		after(2 * time.Hour)
		if k := w.key(second.Secret); k.Deleted() || k.Disabled {
			t.Errorf("key %s was in use before its counter began anew: disabled %t, deleted %t", k.ID, k.Disabled, k.Deleted())
		}
		lost, err := w.build(options{}, p).Lost(context.Background())
		if err != nil || len(lost) != 1 || lost[0].KeyID != second.ID {
			t.Errorf("prune would list %+v, %v", lost, err)
		}
	})
}
