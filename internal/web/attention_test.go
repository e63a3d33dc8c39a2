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
	// What the page cannot know, or what keeps it from being served. A clock that is wrong is said by each policy that waits for it.
	unseen := []string{"RekeydClockSkew", "RekeydDown", "RekeydLoopStalled", "RekeydEventsNotDelivered", "RekeydVaultTokenEnding", "RekeydWorkspaceLimitNear"}
	for a := range drift + 1 {
		if got := addresses[a.Name()]; got != a.Runbook() {
			t.Errorf("%s: the page links to %s, the alert to %q", a.Name(), a.Runbook(), got)
		}
		delete(addresses, a.Name())
	}
	for name := range addresses {
		if !slices.Contains(unseen, name) {
			t.Errorf("nothing on the page says what %s does", name)
		}
	}
}

func TestTheWorstComesFirstAndOnce(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	policy := func(name, workspace string, change func(*rotator.PolicyStatus)) rotator.PolicyStatus {
		s := rotator.PolicyStatus{Policy: &plan.Policy{Name: name, Workspace: workspace}, State: plan.StateOK, Loaded: true, Current: &ledger.KeyRef{ID: "k", Created: now.Add(-time.Hour)}}
		change(&s)
		return s
	}
	failing := func(reason ledger.Reason) func(*rotator.PolicyStatus) {
		return func(s *rotator.PolicyStatus) {
			s.State, s.Reason = plan.StateFailing, reason
			s.Failure = &ledger.Failure{Stage: ledger.StageClaim, Reason: reason, Message: "it failed", At: now.Add(-time.Minute), Count: 1}
		}
	}
	decision := func(reason ledger.Reason) func(*rotator.PolicyStatus) {
		return func(s *rotator.PolicyStatus) {
			s.State, s.Reason, s.Message = plan.StateError, reason, "decide"
		}
	}
	s := rotator.Snapshot{Policies: []rotator.PolicyStatus{
		policy("drifted", "a", func(s *rotator.PolicyStatus) { s.Drift = []string{"allowed_ips"} }),
		policy("empty", "a", func(s *rotator.PolicyStatus) { decision(ledger.ReasonRecordChanged)(s); s.Current = nil }),
		policy("fine", "a", func(*rotator.PolicyStatus) {}),
		policy("leaking", "a", decision(ledger.ReasonLeakStorm)),
		policy("cut", "a", func(s *rotator.PolicyStatus) { failing(ledger.ReasonKeyLimit)(s); s.CutOff = ledger.ReasonExposed }),
		policy("late", "a", func(s *rotator.PolicyStatus) { s.State, s.NextDue = plan.StateThrottled, now.Add(-time.Hour) }),
		policy("old", "a", func(s *rotator.PolicyStatus) { s.Policy.MaxAge = time.Minute }),
		policy("refused", "b", failing(ledger.ReasonAdminKeyRefused)),
		policy("retrying", "a", func(s *rotator.PolicyStatus) { failing(ledger.ReasonProbeFailed)(s); s.State = plan.StateRotating }),
	}, Workspaces: []rotator.WorkspaceStatus{{Name: "a"}, {Name: "b", Err: elevenlabs.ErrInvalidKey}}}
	said := func(a attention) (all []string) {
		for _, m := range a.Matters {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s: %s", m.Name(), m.Policy(), m.Words())))
		}
		return all
	}
	got := attentionOf(s, rowsOf(&s, now), "")
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
	if got := attentionOf(s, rowsOf(&s, now), "line 3: no such field"); said(got)[0] != "RekeydSinkDown : Ledger and records cannot be used: Vault is sealed" || len(got.Matters) != mattersShown {
		t.Errorf("it says %q", said(got))
	}
	alerts := alertsOf(&s.Policies[1], "", now)
	if !slices.Equal(alerts, []alert{recordChanged, noFirstKey}) {
		t.Errorf("a policy without a key whose record has a foreign value: %v", alerts)
	}
}
