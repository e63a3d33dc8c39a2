package rotator

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

const restOwner = "abcdefgh"

var restNow = time.Date(2026, 5, 5, 4, 0, 0, 123456789, time.UTC)

// restPolicy is a policy as it comes out of a file: its texts are its own.
func restPolicy(i int, s schedule.Schedule, settings elevenlabs.Settings) plan.Policy {
	name := fmt.Sprintf("policy-%05d", i)
	return plan.Policy{Name: name, Workspace: "default", ServiceAccount: fmt.Sprintf("svcacc_%020d", i), Schedule: s, Window: 4 * time.Hour,
		Settings: settings, Overlap: 24 * time.Hour, Quarantine: 24 * time.Hour, Verify: true, OnDrift: plan.DriftPatch, Mode: plan.ModeAuto,
		Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "elevenlabs/" + name}, Field: "api_key"}}
}

// restStore has an entry with one rotation, and its record, for each policy. It keeps nothing: each read makes new texts.
type restStore struct {
	noStore
	settings elevenlabs.Settings
}

func (s restStore) Read(_ context.Context, ref ledger.Ref, _ int) (ledger.Doc, error) {
	var i int
	if _, err := fmt.Sscanf(path.Base(ref.Path), "policy-%d", &i); err != nil {
		return ledger.Doc{}, nil //nolint:nilerr // no such document
	}
	p := restPolicy(i, schedule.Schedule{}, s.settings)
	id, rotation, value, salt := fmt.Sprintf("%032x", i), fmt.Sprintf("klmno%05d", i), fmt.Sprintf("sk_%048x", i), fmt.Sprintf("%016d", i)
	name := ledger.KeyName(restOwner, p.Name, rotation)
	at := restNow.Add(-time.Hour)
	var data any = map[string]any{p.Sink.Field: value, "key_id": id, "key_name": name, "policy": p.Name, "service_account_user_id": p.ServiceAccount, "rotated_at": at.Format(time.RFC3339)}
	if !strings.HasPrefix(ref.Path, "elevenlabs/") {
		e := &ledger.Entry{Schema: ledger.EntrySchema, Owner: restOwner, Policy: p.Name, Salt: salt, LastRotation: at, Quarantine: ledger.Duration(p.Quarantine),
			Current: &ledger.KeyRef{ID: id, Name: name, Rotation: rotation, Workspace: p.Workspace, Account: p.ServiceAccount, Sink: p.Sink,
				Hash: ledger.HashValue(salt, value), Created: at, Published: at, Verified: true, Version: 1},
			Applied: &ledger.Applied{Digest: p.Settings.Digest(), At: at}}
		e.Remember(ledger.Past{Rotation: rotation, By: ledger.BySchedule, Reason: ledger.TriggerFirst, KeyID: id, Started: at, Created: at, Published: at})
		data = e
	}
	text, err := json.Marshal(data)
	return ledger.Doc{JSON: text, Version: 1}, err
}

// BenchmarkRest reports what a policy with one key and one rotation takes in memory between two looks.
func BenchmarkRest(b *testing.B) {
	const policies = 1000
	yearly, err := schedule.Parse("0 0 1 1 *", "UTC")
	if err != nil {
		b.Fatal(err)
	}
	settings := elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech"}}}
	r, clients := aloneAt(b, restNow, restStore{settings: settings})
	r.owner = restOwner
	r.Load(nil, clients)
	var accounts []elevenlabs.ServiceAccount
	for i := range policies {
		p := restPolicy(i, yearly, settings)
		accounts = append(accounts, elevenlabs.ServiceAccount{ID: p.ServiceAccount, Keys: []elevenlabs.Key{
			{ID: fmt.Sprintf("%032x", i), Name: ledger.KeyName(restOwner, p.Name, fmt.Sprintf("klmno%05d", i)), ServiceAccount: p.ServiceAccount, Settings: settings}}})
	}
	ws := r.workspaces["default"]
	ws.listing = r.index(ws, accounts, time.Now())
	for b.Loop() {
		r.policies, r.removed, r.inOrder, r.queue, ws.recent = map[string]*policyState{}, map[string]*policyState{}, nil, nil, map[string]time.Time{}
		before := inUse()
		loaded := make([]plan.Policy, policies)
		for i := range loaded {
			loaded[i] = restPolicy(i, yearly, settings)
		}
		r.Load(loaded, clients)
		r.queue = nil
		ctx, m := metered(ledger.WithSession(b.Context()))
		for _, st := range r.policies {
			st.place = idle
			r.work(ctx, m, st)
			if got := st.statusLocked(); got.State != plan.StateOK || got.Current == nil {
				b.Fatalf("the look finds %s (%s: %s)", got.State, got.Reason, got.Message)
			}
		}
		b.ReportMetric(float64(inUse()-before)/policies, "B/policy")
	}
}

// inUse returns the bytes in use.
func inUse() int64 {
	var m runtime.MemStats
	for range 2 { // the second frees what pools had
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
