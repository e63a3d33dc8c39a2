package rotator_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestNoDeviationIsFatal: where an assumption of elevensim/FIDELITY.md is wrong, what that page says happens: for half a day with two
// rotations due the record holds a key that exists and is enabled, and no storm of keys is made.
func TestNoDeviationIsFatal(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute on a busy machine")
	}
	lag := func(d time.Duration) elevensim.Duration { return elevensim.Duration(d) }
	other := func(code string) map[string]string { return map[string]string{code: "something_else"} }
	prefixes := func(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }
	all := func(p *plan.Policy) { p.Settings.Permissions = elevenlabs.Permissions{All: true} }
	limited := func(p *plan.Policy) { p.Settings.TTSConcurrency = elevenlabs.Some(int64(2)) }
	here := func(p *plan.Policy) { p.Settings.AllowedIPs = prefixes("127.0.0.0/8") }
	away := func(p *plan.Policy) { p.Settings.AllowedIPs, p.Probes = prefixes("192.0.2.0/24"), []string{"/v1/user"} }
	long := func(p *plan.Policy) { p.Name = strings.Repeat("a", 36) }
	spent := func(p *plan.Policy) { p.Settings.CharacterLimit = new(int64) }
	for name, tt := range map[string]struct {
		faults elevensim.Faults
		policy func(*plan.Policy)
		want   string // rotations, state and reason at the end
	}{
		"none": {elevensim.Faults{}, nil, "2 ok"},

		"A01":                 {elevensim.Faults{ListAllNames: true}, all, "2 error settings_ignored"},
		"A02":                 {elevensim.Faults{Codes: other("needs_authorization")}, nil, "2 ok"},
		"A03":                 {elevensim.Faults{Codes: other("invalid_api_key")}, nil, "2 ok"},
		"A03, a disabled key": {elevensim.Faults{DisabledCode: "api_key_disabled"}, nil, "2 ok"},
		"A04":                 {elevensim.Faults{Codes: other("missing_permissions")}, nil, "2 ok"},
		"A05":                 {elevensim.Faults{Unguarded: []string{"listServiceAccounts", "updateAPIKey"}}, nil, "2 ok"},
		"A08":                 {elevensim.Faults{IdempotentDelete: true}, nil, "2 ok"},
		"A09":                 {elevensim.Faults{UniqueNames: true}, nil, "2 ok"},
		"A10":                 {elevensim.Faults{ListPlanLimit: 5}, nil, "2 ok"},
		"A11":                 {elevensim.Faults{ListThirdParty: new(true)}, nil, "2 ok"},
		"A12":                 {elevensim.Faults{ListAnyAddress: true}, nil, "2 error settings_ignored"},
		"A13":                 {elevensim.Faults{Codes: other("ip_not_allowed")}, away, "0 failing probe_failed"},
		"A13, not enforced":   {elevensim.Faults{UnenforcedIPs: true}, away, "2 ok"},
		"A14":                 {elevensim.Faults{RateLimit: elevensim.RateLimit{PerSecond: 0.5, Burst: 2}, RetryAfterInWords: "in a moment"}, nil, "2 ok"},
		"A15":                 {elevensim.Faults{KeyDelay: lag(time.Hour)}, nil, "0 failing not_usable"},
		"A15, another code":   {elevensim.Faults{KeyDelay: lag(time.Second), KeyDelayCode: "not_ready"}, nil, "2 ok"},
		"A15, refused once":   {elevensim.Faults{RefusedNth: 3}, nil, "2 ok"},
		"A16":                 {elevensim.Faults{ListLag: lag(time.Hour)}, nil, "2 ok"},
		"A16, and no ids":     {elevensim.Faults{ListLag: lag(time.Hour), NoKeyID: true}, nil, "0 failing not_usable"},
		"A17":                 {elevensim.Faults{IDLag: lag(time.Hour)}, nil, "2 ok"},
		"A18":                 {elevensim.Faults{DisableLag: lag(2 * time.Hour)}, nil, "2 ok"},
		"A19":                 {elevensim.Faults{ChangeLag: lag(time.Hour)}, nil, "2 ok"},
		"A20":                 {elevensim.Faults{KeyLimit: 1, Codes: other("max_api_keys_reached")}, nil, "0 failing invalid_request"},
		"A21":                 {elevensim.Faults{NameLimit: 40}, long, "0 failing invalid_request"},
		"A21, cut":            {elevensim.Faults{NameCut: 40}, long, "2 ok"},
		"A22":                 {elevensim.Faults{UsagePerRequest: 1, Codes: map[string]string{"quota_exceeded": "invalid_api_key"}}, spent, "0 failing not_usable"},
		"A23":                 {elevensim.Faults{NotOffered: []string{"allowed_ips"}}, here, "0 failing forbidden"},
		"A24":                 {elevensim.Faults{NotOffered: []string{"tts_concurrency_limit"}, Codes: other("feature_not_available")}, limited, "0 failing forbidden"},
		"A25":                 {elevensim.Faults{ConcurrencyCap: 1}, limited, "2 error settings_ignored"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := testPolicy(t, tt.policy)
				p.Schedule, p.Quarantine = mustParse(t, "0 3,9 * * *"), 3*time.Hour // the first key is deleted at 10:00
				r, stop := w.start(p)
				defer stop()
				after(time.Minute)
				w.inRecord(p)
				creates := 0
				w.sim.OnChange(func(c elevensim.Change) {
					if c.Kind == elevensim.Created {
						creates++
					}
					if secret, _ := w.record(p)[p.Sink.Field].(string); secret == c.Key.Secret && (c.Kind == elevensim.Disabled || c.Kind == elevensim.Deleted) {
						t.Errorf("%s: %s of the key in the record", time.Now(), c.Kind)
					}
				})
				if err := w.sim.SetFaults(tt.faults); err != nil {
					t.Fatal(err)
				}
				after(12 * time.Hour)
				s := r.Snapshot().Policies[0]
				why := s.Reason
				w.mu.Lock()
				for _, e := range w.events {
					if e.Type == rotator.EventFailed && s.State == plan.StateFailing {
						why = e.Reason
					}
				}
				w.mu.Unlock()
				got := strings.TrimSpace(fmt.Sprintf("%d %s %s", w.countEvents(rotator.EventRotated)-1, s.State, plan.Word(why)))
				if k := w.inRecord(p); got != tt.want || creates > 40 || k.Disabled || k.Deleted() {
					t.Errorf("%s, and %d creates; want %s", got, creates, tt.want)
				}
			})
		})
	}
}

// A new key that is refused with a code that nobody knows, until it works, is published once it works.
func TestAKeyThatIsRefusedInOtherWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		defer stop()
		after(time.Minute)
		if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(20 * time.Second), KeyDelayCode: "api_key_not_ready"}); err != nil {
			t.Fatal(err)
		}
		after(3*time.Hour - 2*time.Minute)
		for range 180 {
			after(time.Second)
			secret, _ := w.record(p)[p.Sink.Field].(string)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://api.invalid/v1/user", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("xi-api-key", secret)
			resp, err := w.api.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("readers have a key that is answered %d", resp.StatusCode)
			}
		}
		if w.countEvents(rotator.EventRotated) != 2 {
			t.Error("it was not rotated")
		}
	})
}
