package web

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestTheRunbookIsThatOfTheAlerts: the page and Prometheus send a person to the same section.
func TestTheRunbookIsThatOfTheAlerts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				addresses[r.Alert] = r.Annotations["runbook_url"]
			}
		}
	}
	excused := map[string]string{"RekeydDown": "there is no page then"}
	for a := range drift + 1 {
		if got := addresses[a.Name()]; got != a.Runbook() {
			t.Errorf("%s: the page links to %s, the alert to %q", a.Name(), a.Runbook(), got)
		}
		delete(addresses, a.Name())
	}
	for name := range addresses {
		if excused[name] == "" {
			t.Errorf("nothing on the page says what %s does", name)
		}
	}
}

func TestTheWorstComesFirstAndOnce(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	policy := func(name, workspace string, change func(*rotator.PolicyStatus)) rotator.PolicyStatus {
		s := rotator.PolicyStatus{Policy: &plan.Policy{Name: name, Workspace: workspace}, Outlook: plan.Outlook{State: plan.StateOK}, Loaded: true, Current: &ledger.KeyRef{ID: "k", Created: now.Add(-time.Hour)}}
		change(&s)
		return s
	}
	failing := func(reason ledger.Failure) func(*rotator.PolicyStatus) {
		return func(s *rotator.PolicyStatus) {
			s.State, s.Reason = plan.StateFailing, reason
			s.Failure = &ledger.LastFailure{Stage: ledger.StageClaim, Reason: reason, Message: "it failed", At: now.Add(-time.Minute), Count: 1}
		}
	}
	decision := func(reason plan.Fault) func(*rotator.PolicyStatus) {
		return func(s *rotator.PolicyStatus) {
			s.State, s.Reason, s.Message = plan.StateError, reason, "decide"
		}
	}
	s := rotator.Snapshot{Policies: []rotator.PolicyStatus{
		policy("drifted", "a", func(s *rotator.PolicyStatus) { s.Drift = []string{"allowed_ips"} }),
		policy("empty", "a", func(s *rotator.PolicyStatus) { decision(plan.FaultRecordChanged)(s); s.Current = nil }),
		policy("fine", "a", func(*rotator.PolicyStatus) {}),
		policy("leaking", "a", decision(plan.FaultLeakStorm)),
		policy("cut", "a", func(s *rotator.PolicyStatus) { failing(ledger.FailureKeyLimit)(s); s.CutOff = plan.DisabledExposed }),
		policy("late", "a", func(s *rotator.PolicyStatus) { s.State, s.NextDue = plan.StateThrottled, now.Add(-time.Hour) }),
		policy("old", "a", func(s *rotator.PolicyStatus) { s.Policy.MaxAge = time.Minute }),
		policy("refused", "b", failing(ledger.FailureAdminKeyRefused)),
		policy("retrying", "a", func(s *rotator.PolicyStatus) { failing(ledger.FailureProbeFailed)(s); s.State = plan.StateRotating }),
	}, Workspaces: []rotator.WorkspaceStatus{{Name: "a"}, {Name: "b", Err: elevenlabs.ErrInvalidKey}}}
	said := func(a attention) (all []string) {
		for _, m := range a.Matters {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s: %s", m.Name(), m.Policy(), m.Words())))
		}
		return all
	}
	got := attentionOf(s, rowsOf(&s, now), vitals{started: now}, now, false)
	want := []string{
		"RekeydLeakStorm leaking: decide.",
		"RekeydKeyDisabled cut: Readers are refused, since the key is disabled (exposed_publicly). Failed at claim, 1m0s ago: it failed.",
		"RekeydAdminKeyRefused : Workspace b: " + elevenlabs.ErrInvalidKey.Error(),
		"RekeydRecordChanged empty: decide.",
	}
	if words := said(got); !slices.Equal(words, want) || got.More != 4 || got.Policies != 8 {
		t.Errorf("it says %d of %d more:\n%s", got.More, got.Policies, strings.Join(words, "\n"))
	}
	s.StoreDown = errors.New("Vault is sealed")
	if got := attentionOf(s, rowsOf(&s, now), vitals{started: now, reloadFault: "line 3: no such field"}, now, false); said(got)[0] != "RekeydSinkDown : Ledger and records cannot be used: Vault is sealed" || len(got.Matters) != mattersShown {
		t.Errorf("it says %q", said(got))
	}
	s.Workspaces[0].Accounts = make([]elevenlabs.ServiceAccount, accountsNear)
	all := attentionOf(s, rowsOf(&s, now), vitals{started: now}, now, true)
	if words := said(all); len(words) != mattersShown+1 || !strings.HasPrefix(words[mattersShown], "RekeydWorkspaceLimitNear : ") || all.More != 5 {
		t.Errorf("where the list shows the policies, what is not of one is left out; %d more than %q", all.More, words)
	}
	alerts := alertsOf(&s.Policies[1], "", now)
	if !slices.Equal(alerts, []alert{recordChanged, noFirstKey}) {
		t.Errorf("a policy without a key whose record has a foreign value: %v", alerts)
	}
}

// TestEveryAlertIsSaid makes each alert in turn: the page has a sentence for it, and is silent just before.
func TestEveryAlertIsSaid(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	type world struct {
		vitals
		rotator.PolicyStatus
		ws   rotator.WorkspaceStatus
		down error
	}
	failing := func(r plan.Reason) func(*world) {
		return func(w *world) { w.State, w.Reason, w.Message = plan.StateFailing, r, "it failed" }
	}
	decision := func(r plan.Fault) func(*world) {
		return func(w *world) { w.State, w.Reason, w.Message = plan.StateError, r, "decide" }
	}
	said := map[alert]bool{}
	store := func(d time.Duration) func(*world) { return func(w *world) { w.skew.Store = &d } }
	refused := fmt.Errorf("listing: %w", elevenlabs.ErrInvalidKey)
	for _, c := range []struct {
		alert
		make func(*world)
		says string
	}{
		{sinkDown, func(w *world) { w.down = errors.New("Vault is sealed") }, "Vault is sealed"},
		{tokenEnding, func(w *world) { w.tokenEnds = now.Add(5 * time.Minute) }, "The Vault token ends in 5m0s, and nothing renews it."},
		{tokenEnding, func(w *world) { w.tokenEnds = now.Add(-time.Second) }, "The Vault token has ended, 1s ago."},
		{leakStorm, decision(plan.FaultLeakStorm), "decide."},
		{keyDisabled, func(w *world) { w.CutOff = plan.DisabledExposed }, "Readers are refused, since the key is disabled (exposed_publicly)."},
		{keyVanished, decision(plan.FaultKeyVanished), "decide."},
		{adminKeyRefused, func(w *world) { w.ws.Err = refused }, "Workspace default: listing: "},
		{adminKeyRefused, func(w *world) { w.ws.Err, w.ws.LastReconcile = refused, now.Add(-24*time.Hour) }, "Workspace default: listing: "},
		{recordChanged, decision(plan.FaultRecordChanged), "decide."},
		{keyTooOld, func(w *world) { w.Policy.MaxAge = time.Minute }, "The key is 1h0m old, and max_age is 1m0s."},
		{loopStalled, func(w *world) { w.ws.LastReconcile = now.Add(-40 * time.Minute) }, "Workspace default was not listed for 40m0s: the loop stands still."},
		{loopStalled, func(w *world) { w.ws.LastReconcile, w.started = time.Time{}, now.Add(-31*time.Minute) }, "Workspace default was not listed for 31m0s"},
		{loopStalled, func(w *world) { w.ws.LastReconcile, w.ws.Err = now.Add(-31*time.Minute), errors.New("no answer") }, "Workspace default could not be listed for 31m0s: no answer"},
		{-1, func(w *world) { w.ws.LastReconcile, w.interval = now.Add(-40*time.Minute), 20*time.Minute }, ""},
		{noFirstKey, func(w *world) { failing(ledger.FailureAPIError)(w); w.Current = nil }, "api_error."},
		{workspaceDown, func(w *world) { w.ws.Err = errors.New("no answer") }, "Workspace default: no answer"},
		{reloadFailed, func(w *world) { w.reloadFault = "line 3" }, "the old policies stay in force: line 3"},
		{clockSkew, store(-10 * time.Minute), "The clock of this host is 10m0s behind that of Vault."},
		{clockSkew, func(w *world) {
			store(10 * time.Minute)(w)
			w.skew.Workspaces = map[string]time.Duration{"default": time.Second, "other": 3 * time.Minute}
		}, "The clock of this host is 3m0s ahead of that of ElevenLabs (workspace other) and 10m0s ahead of that of Vault."},
		{-1, store(2 * time.Minute), ""},
		{replicasDisagree, failing(plan.FaultReplicasDiffer), "replicas_disagree."},
		{keyLimit, failing(ledger.FailureKeyLimit), "key_limit."},
		{rotationFailing, failing(ledger.FailureAPIError), "api_error."},
		{retirementFailing, func(w *world) { w.Unswept = 2 }, "could not be disabled or deleted"},
		{oldKeyAccepted, func(w *world) { w.Accepted = true }, "still accepts"},
		{proofMissing, func(w *world) { w.Unproven = true }, "nothing shows"},
		{throttled, func(w *world) { w.State, w.NextDue = plan.StateThrottled, now.Add(-time.Hour) }, "Due for 1h0m"},
		{rotationOverdue, func(w *world) { w.NextDue = now.Add(-time.Hour) }, "was due 1h0m ago"},
		{oldKeyInUse, func(w *world) {
			w.InUse, w.Retiring = true, []ledger.Retiring{{State: ledger.InOverlap, Until: now.Add(time.Minute)}}
		}, "still in use"},
		{lostKeys, func(w *world) { w.Keys.Lost = 2 }, "stored nowhere: 2."},
		{keyLimitNear, func(w *world) { w.RoomMade = true }, "full"},
		{workspaceLimitNear, func(w *world) { w.ws.Accounts = make([]elevenlabs.ServiceAccount, 18) }, "Workspace default has 18 service accounts, of 20"},
		{-1, func(w *world) { w.ws.Accounts = make([]elevenlabs.ServiceAccount, 17) }, ""},
		{-1, func(w *world) { w.ws.Accounts = make([]elevenlabs.ServiceAccount, 21) }, ""},
		{eventsNotDelivered, func(w *world) { w.lost, w.lostWhy = now.Add(-59*time.Minute), "sending an event: HTTP 500" }, "An event was given up 59m0s ago, and will not be sent again: sending an event: HTTP 500."},
		{-1, func(w *world) { w.lost = now.Add(-time.Hour) }, ""},
		{drift, func(w *world) { w.Drift = []string{"allowed_ips"} }, "allowed_ips"},
	} {
		w := world{vitals: vitals{started: now}, ws: rotator.WorkspaceStatus{Name: "default", LastReconcile: now}}
		w.PolicyStatus = rotator.PolicyStatus{Policy: &plan.Policy{Name: "p", Workspace: "default"}, Outlook: plan.Outlook{State: plan.StateOK}, Loaded: true, Current: &ledger.KeyRef{ID: "k", Created: now.Add(-time.Hour)}}
		c.make(&w)
		s := rotator.Snapshot{Policies: []rotator.PolicyStatus{w.PolicyStatus}, Workspaces: []rotator.WorkspaceStatus{w.ws}, StoreDown: w.down}
		got := attentionOf(s, rowsOf(&s, now), w.vitals, now, false).Matters
		if c.alert < 0 {
			if len(got) > 0 {
				t.Errorf("%s: %s", got[0].Name(), got[0].Words())
			}
			continue
		}
		if i := slices.IndexFunc(got, func(m matter) bool { return m.alert == c.alert }); i < 0 || !strings.Contains(got[i].Words(), c.says) {
			t.Errorf("%s is not said so: %q of %v", c.Name(), c.says, got)
		}
		said[c.alert] = true
	}
	for a := range drift + 1 {
		if !said[a] {
			t.Errorf("%s was not tried", a.Name())
		}
	}
}

// TestAThrottledFirstKeyNeedsAttention: the readers of a policy that still has its turn to come find nothing.
func TestAThrottledFirstKeyNeedsAttention(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	s := rotator.Snapshot{Policies: []rotator.PolicyStatus{
		{Policy: &plan.Policy{Name: "new", Workspace: "a"}, Loaded: true, Outlook: plan.Outlook{State: plan.StateThrottled, Reason: plan.WaitThrottled, Message: "workspace a has had 5 rotations", NextDue: now.Add(time.Hour)}},
		{Policy: &plan.Policy{Name: "old", Workspace: "a"}, Loaded: true, Outlook: plan.Outlook{State: plan.StateThrottled, Reason: plan.WaitThrottled, NextDue: now.Add(-time.Minute)}, Current: &ledger.KeyRef{ID: "k", Created: now}},
	}}
	got := attentionOf(s, rowsOf(&s, now), vitals{started: now}, now, false)
	if len(got.Matters) != 1 || got.Matters[0].Name() != "RekeydNoFirstKey" || got.Matters[0].Policy() != "new" || got.Matters[0].Words() != "workspace a has had 5 rotations." {
		t.Errorf("it says %+v", got.Matters)
	}
}
