package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

var update = flag.Bool("update", false, "write what is said now into testdata, to be read before it is kept")

// environment is enough to load policies, plus what a test adds as NAME=value.
func environment(text string, more ...string) envconfig.Lookuper {
	env := map[string]string{
		"REKEYD_POLICIES": text, "ELEVENLABS_API_KEY": "sk_verysecret", "REKEYD_SINK": "file",
		"VAULT_ADDR": "http://127.0.0.1:8200", "VAULT_TOKEN": "hvs.verysecret",
	}
	for _, entry := range more {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return envconfig.MapLookuper(env)
}

// load loads a policy file with an environment that is itself without fault.
func load(t testing.TB, text string, more ...string) (*Config, error) {
	t.Helper()
	lookup := environment(text, more...)
	env, err := LoadEnv(lookup)
	if err != nil && text != "" {
		t.Fatalf("environment: %v", err)
	}
	c, err := LoadPolicies(t.Context(), Source{Text: text}, env, lookup)
	if (c == nil) != (err != nil) {
		t.Fatalf("config %v together with error %v", c, err)
	}
	if err != nil && strings.Contains(err.Error(), "verysecret") {
		t.Fatalf("the error shows a secret: %v", err)
	}
	return c, err
}

// refusal is one case of testdata/refused.txt.
type refusal struct {
	name string
	env  []string
	body string // as written in the file
	want string
}

// text completes a body of "+ field: value" lines to a policy file that is otherwise right.
func (r refusal) text() string {
	if !strings.HasPrefix(r.body, "+ ") {
		return r.body
	}
	own := strings.ReplaceAll("\n"+r.body, "\n+ ", "\n  ")
	out := "policies:\n- "
	for _, line := range []string{"name: a", "service_account: svcacc_a", "sink: {path: elevenlabs/a}", "schedule: \"0 3 * * 1\"", "permissions: all"} {
		field, _, _ := strings.Cut(line, ":")
		if !strings.Contains(own, "\n  "+field+":") {
			out += line + "\n  "
		}
	}
	return strings.TrimRight(out, " \n") + strings.TrimRight(own, " ") + "\n"
}

func readRefusals(t testing.TB) []refusal {
	t.Helper()
	content, err := os.ReadFile("testdata/refused.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []refusal
	for part := range strings.SplitSeq("\n"+string(content), "\n## ") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		question, want, _ := strings.Cut(part, "\n=>")
		name, body, _ := strings.Cut(question, "\n")
		r := refusal{name: name, want: strings.TrimSpace(want)}
		for strings.HasPrefix(body, "$ ") {
			var line string
			line, body, _ = strings.Cut(body, "\n")
			r.env = append(r.env, strings.TrimPrefix(line, "$ "))
		}
		r.body = body
		out = append(out, r)
	}
	return out
}

func TestRefused(t *testing.T) {
	var said strings.Builder
	cases := readRefusals(t)
	if len(cases) < 100 {
		t.Fatalf("%d cases, want at least 100", len(cases))
	}
	for _, r := range cases {
		t.Run(r.name, func(t *testing.T) {
			_, err := load(t, r.text(), r.env...)
			if err == nil {
				t.Fatal("accepted")
			}
			if faults, ok := errors.AsType[Faults](err); !ok || len(faults) == 0 {
				t.Fatalf("the error is a %T", err)
			}
			if got := err.Error(); got != r.want && !*update {
				t.Errorf("got:\n%s\nwant:\n%s", got, r.want)
			}
			said.WriteString("## " + r.name + "\n")
			for _, line := range r.env {
				said.WriteString("$ " + line + "\n")
			}
			if r.body != "" {
				said.WriteString(r.body + "\n")
			}
			said.WriteString("=>\n" + err.Error() + "\n\n")
		})
	}
	if *update {
		if err := os.WriteFile("testdata/refused.txt", []byte(strings.TrimRight(said.String(), "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func only(t *testing.T, text string, more ...string) plan.Policy {
	t.Helper()
	c, err := load(t, text, more...)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Policies) != 1 {
		t.Fatalf("%d policies, want 1", len(c.Policies))
	}
	return c.Policies[0]
}

// with completes lines to a policy file of one policy.
func with(lines ...string) string {
	return refusal{body: "+ " + strings.Join(append([]string{"mode: auto"}, lines...), "\n+ ")}.text()
}

func TestEveryFieldIsUsed(t *testing.T) {
	_, err := load(t, complete, "REKEYD_SINK=vault", "ELEVENLABS_EU=sk_eu")
	if err == nil || !strings.Contains(err.Error(), "api_key.file cannot be read") {
		t.Fatalf("the key's file is not there: %v", err)
	}
	text := strings.Replace(complete, `{"file": "/run/secrets/eu"}`, `{"env": "ELEVENLABS_EU"}`, 1)
	text = strings.Replace(text, `"max_age": "1h30m"`, `"max_age": "200h"`, 1)
	c, err := load(t, text, "REKEYD_SINK=vault", "ELEVENLABS_EU=sk_eu")
	if err != nil {
		t.Fatal(err)
	}
	limit := int64(100000)
	sched, err := schedule.Parse("0 3 * * 1", "Europe/Oslo")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Policies[1]
	if got.Schedule.String() != sched.String() || got.Schedule.Zone() != "Europe/Oslo" {
		t.Errorf("schedule %v in %s", got.Schedule, got.Schedule.Zone())
	}
	got.Schedule = schedule.Schedule{}
	want := plan.Policy{
		Name: "tts-prod", Workspace: "eu", ServiceAccount: "svcacc_9f8b7c6d5e4a3b2c1d0e",
		Splay: 10 * time.Minute, Window: 4 * time.Hour, Group: "tts", MaxAge: 200 * time.Hour,
		Settings: elevenlabs.Settings{
			Permissions:    elevenlabs.Permissions{Names: []string{"text_to_speech", "voices_read"}},
			AllowedIPs:     []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::7/128")},
			CharacterLimit: &limit,
			Optional: elevenlabs.Optional{TTSConcurrency: elevenlabs.Some(int64(0)), DubbingConcurrency: elevenlabs.None[int64](),
				MusicConcurrency: elevenlabs.Some(int64(10)), ThirdPartyDisable: elevenlabs.Some(false)},
		},
		Overlap: 24 * time.Hour, Quarantine: 24 * time.Hour, Verify: false, OnDrift: plan.DriftReport, Mode: plan.ModeManual,
		Sink:   ledger.Sink{Ref: ledger.Ref{Mount: "kv/team", Path: "elevenlabs/tts-prod"}, Field: "api_key"},
		Labels: map[string]string{"team": "speech", "stage": "prod"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if w := c.Workspaces[2]; w.Name != "us" || w.BaseURL != "https://api.elevenlabs.io" || w.APIKey.Vault == nil || w.APIKey.Vault.String() != "secret/elevenlabs/admin" {
		t.Errorf("workspace %+v", w)
	}
	if key, err := c.Workspaces[1].APIKey.Secret.Get(t.Context()); err != nil || key.Reveal() != "sk_eu" {
		t.Errorf("key of eu: %v", err)
	}
}

func TestPolicyDefaults(t *testing.T) {
	p := only(t, with())
	if p.Workspace != "default" || p.Schedule.Zone() != "UTC" || p.Splay != 0 || p.Overlap != 24*time.Hour || p.Quarantine != 24*time.Hour ||
		p.WaitUntilIdle != 0 || !p.Verify || p.OnDrift != plan.DriftPatch || p.Mode != plan.ModeAuto || p.Sink.Mount != "secret" ||
		p.Sink.Field != "api_key" || p.MaxAge != 0 || p.Window != 0 || p.Group != "" || p.Adopt != "" || p.Settings.AllowedIPs != nil ||
		p.Settings.CharacterLimit != nil || p.Settings.Optional != (elevenlabs.Optional{}) || !p.Settings.Permissions.All {
		t.Errorf("got %+v", p)
	}
	if p := only(t, with(`schedule: "@every 6h"`)); p.Overlap != 3*time.Hour {
		t.Errorf("overlap is %v, want half of the shortest gap", p.Overlap)
	}
	if p := only(t, with("overlap: 0")); p.Overlap != 0 {
		t.Errorf("overlap is %v, want the 0 that was given", p.Overlap)
	}
	if p := only(t, with(`schedule: "CRON_TZ=Europe/Oslo 0 3 * * 1"`)); p.Schedule.Zone() != "Europe/Oslo" {
		t.Errorf("zone is %v, want the prefix's", p.Schedule.Zone())
	}
}

func TestDefaultsBlock(t *testing.T) {
	p := only(t, "policies:\n- {name: a, service_account: s, sink: {path: a}, splay: 5m, group: ''}\n"+
		"defaults: {schedule: '@weekly', permissions: [flows], splay: 1h, overlap: 2h, group: tts, verify: off, timezone: Europe/Oslo}")
	if p.Splay != 5*time.Minute || p.Overlap != 2*time.Hour || p.Group != "" || p.Verify || p.Schedule.Zone() != "Europe/Oslo" ||
		!slices.Equal(p.Settings.Permissions.Names, []string{"flows"}) {
		t.Errorf("got %+v", p)
	}
}

// TestLabels: a policy adds to the labels of defaults, replaces one of them, and removes one with an empty value.
func TestLabels(t *testing.T) {
	const defaults = "defaults: {labels: {team: voice, stage: prod, zone: north}}\n"
	for own, want := range map[string]string{
		"group: tts": "map[stage:prod team:voice zone:north]", `labels: {team: Søk & tale, zone: "", _a9: "1"}`: "map[_a9:1 stage:prod team:Søk & tale]",
		`labels: {team: "", stage: "", zone: ""}`: "map[]", `labels: {a: x, b: x, c: x, d: x, e: x, team: ""}`: "map[a:x b:x c:x d:x e:x stage:prod zone:north]",
	} {
		if got := fmt.Sprint(only(t, defaults+with(own)).Labels); got != want {
			t.Errorf("%s: %s, want %s", own, got, want)
		}
	}
	c, err := load(t, "defaults: {schedule: '@daily', permissions: all, labels: {team: voice}}\npolicies:\n"+
		"- {name: a, service_account: s, sink: {path: a}, labels: {team: a}}\n- {name: b, service_account: s, sink: {path: b}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.Policies[0].Labels["team"], c.Policies[1].Labels["team"]; a != "a" || b != "voice" {
		t.Errorf("team is %s and %s, want the policy's own and that of defaults", a, b)
	}
	if p := only(t, with()); p.Labels != nil {
		t.Errorf("labels %v without any", p.Labels)
	}
}

// TestProfiles: a policy's own value wins over its profile's, which wins over that of defaults.
func TestProfiles(t *testing.T) {
	const head = "defaults: {profile: test, overlap: 1h, window: 2h, labels: {team: voice, stage: none}}\n" +
		"profiles:\n  prod: {schedule: '@weekly', permissions: all, overlap: 3h, quarantine: 4h, labels: {stage: prod, tier: a}}\n" +
		"  test: {schedule: '@daily', permissions: all, labels: {stage: test}}\n"
	for own, want := range map[string]string{
		"profile: prod": "3h 2h 4h map[stage:prod team:voice tier:a]",
		"profile: prod, overlap: 5h, labels: {tier: b}": "5h 2h 4h map[stage:prod team:voice tier:b]",
		"window: 6h": "1h 6h 24h map[stage:test team:voice]",
		"profile: '', schedule: '@daily', permissions: all": "1h 2h 24h map[stage:none team:voice]",
	} {
		p := only(t, head+"policies:\n- {name: a, service_account: s, sink: {path: a}, "+own+"}\n")
		if got := fmt.Sprint(FormatDuration(p.Overlap), " ", FormatDuration(p.Window), " ", FormatDuration(p.Quarantine), " ", p.Labels); got != want {
			t.Errorf("%s: %s, want %s", own, got, want)
		}
	}
}

func TestPermissionsAndAddresses(t *testing.T) {
	p := only(t, with("permissions: [voices_read, flows, voices_read]", "allowed_ips: [203.0.113.7, 203.0.113.7/32, '::ffff:203.0.113.7', '::ffff:10.0.0.0/104', '2001:DB8::7', 0.0.0.0/0]"))
	if !slices.Equal(p.Settings.Permissions.Names, []string{"voices_read", "flows"}) {
		t.Errorf("permissions %v", p.Settings.Permissions.Names)
	}
	if got, want := fmt.Sprint(p.Settings.AllowedIPs), "[203.0.113.7/32 10.0.0.0/8 2001:db8::7/128 0.0.0.0/0]"; got != want {
		t.Errorf("addresses %s, want %s", got, want)
	}
	p = only(t, with("permissions: [brand_new]"), "REKEYD_ALLOW_UNKNOWN_PERMISSIONS=true")
	if !slices.Equal(p.Settings.Permissions.Names, []string{"brand_new"}) {
		t.Errorf("permissions %v", p.Settings.Permissions.Names)
	}
}

func TestAcceptedBaseURLs(t *testing.T) {
	urls := []string{
		"https://api.us.elevenlabs.io", "https://api.eu.residency.elevenlabs.io", "https://api.in.residency.elevenlabs.io",
		"https://api.sg.residency.elevenlabs.io", "https://API.elevenlabs.io:443/", "http://localhost:1", "http://127.0.0.2:8642",
		"http://[::1]:8642", "https://proxy.example.com:8443", "http://sim.example.com", "https://own.example.com",
	}
	for _, u := range urls {
		text := "workspaces: [{name: default, base_url: '" + u + "', api_key: {env: ELEVENLABS_API_KEY}}]\n" + with()
		c, err := load(t, text, "REKEYD_ALLOWED_API_ORIGINS=https://Proxy.example.com:8443,http://sim.example.com:80", "ELEVENLABS_BASE_URL=https://own.example.com/eleven")
		if err != nil {
			t.Errorf("%s: %v", u, err)
		} else if c.Workspaces[0].BaseURL != u {
			t.Errorf("%s became %s", u, c.Workspaces[0].BaseURL)
		}
	}
}

func TestWarnings(t *testing.T) {
	c, err := load(t, with(`schedule: "@daily"`, "character_limit: 1000", "sink: {path: data/a}"))
	if err != nil {
		t.Fatal(err)
	}
	want := `REKEYD_POLICIES:7:20: policy "a": character_limit is 1000 a month for each key, and every rotation brings a new key: up to 31 rotations a month allow 32 times as much
REKEYD_POLICIES:8:16: policy "a": sink.path is "data/a", but Vault adds data/ itself; write "a" if you mean that record`
	if got := Faults(c.Warnings).Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestAMaxAgeThatGoesAheadOfItsGroup: a day between runs and 3h of overlap leave b no time to wait for the 4h of a.
func TestAMaxAgeThatGoesAheadOfItsGroup(t *testing.T) {
	for maxAge, warned := range map[string]bool{"27h": true, "30h59m": true, "31h": false} {
		c, err := load(t, "defaults: {group: tts, schedule: '@daily', permissions: all}\npolicies:\n- {name: a, service_account: s, sink: {path: a}, overlap: 4h}\n"+
			"- {name: b, service_account: s, sink: {path: b}, overlap: 3h, max_age: "+maxAge+"}\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := Faults(c.Warnings).Error(); strings.Contains(got, "at least 31h") != warned || (len(c.Warnings) > 0) != warned {
			t.Errorf("max_age %s: %s", maxAge, got)
		}
	}
}

func TestGroupsThatFit(t *testing.T) {
	c, err := load(t, "defaults: {group: tts, schedule: '@daily', overlap: 11h, wait_until_idle: 59m}\npolicies:\n"+
		"- {name: a, service_account: s, sink: {path: a}, permissions: all}\n- {name: b, service_account: s, sink: {path: b}, permissions: all}\n"+
		"- {name: c, service_account: s, sink: {path: c}, permissions: all, group: other, overlap: 23h30m}\n")
	if err != nil || len(c.Policies) != 3 {
		t.Error(err)
	}
}

func TestTooManyFaults(t *testing.T) {
	_, err := load(t, strings.Repeat("x: 1\n", 5000))
	faults, _ := errors.AsType[Faults](err)
	if len(faults) != maxFaults+1 || faults[maxFaults].Text != "there are more than 999 faults; the rest is not shown" {
		t.Errorf("%d faults, the last: %v", len(faults), faults[len(faults)-1])
	}
}

// TestAdminKeyPolicy: a policy is that of an admin key when it publishes to the very field that a workspace reads.
func TestAdminKeyPolicy(t *testing.T) {
	const text = `workspaces:
- {name: eu, base_url: https://api.eu.residency.elevenlabs.io, api_key: {vault: {path: elevenlabs/admin}}}
- {name: us, api_key: {vault: {path: elevenlabs/admin-us, field: token}}}
defaults: {schedule: "@daily", permissions: all}
policies:
- {name: a, workspace: eu, service_account: s, sink: {path: elevenlabs/admin}}
- {name: b, workspace: us, service_account: s, sink: {path: elevenlabs/admin-us, field: token}, permissions: [service_account_write]}
- {name: c, workspace: us, service_account: s, sink: {path: elevenlabs/c}}
`
	for _, sink := range []string{"vault", "file"} {
		c, err := load(t, text, "REKEYD_SINK="+sink)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"eu", "us", ""} {
			if got := c.Policies[i].AdminOf; got != want {
				t.Errorf("sink %s: policy %s is the admin key of %q, want %q", sink, c.Policies[i].Name, got, want)
			}
		}
	}
}

// TestNamesOfTheRecord: no policy keeps its secret in a field that rekeyd overwrites with something else.
func TestNamesOfTheRecord(t *testing.T) {
	for _, name := range ledger.RecordFields() {
		if _, err := load(t, with("sink: {path: a, field: "+name+"}")); err == nil || !strings.Contains(err.Error(), "sink.field") {
			t.Errorf("field %s: %v", name, err)
		}
	}
}

func TestDurationsAsWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"24h": "24h", "90m": "1h30m", "0": "0s", "90s": "1m30s", "10m": "10m", "30s": "30s", "1h0m10s": "1h0m10s", "20h": "20h"} {
		d, err := time.ParseDuration(text)
		if got := FormatDuration(d); err != nil || got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestPoliciesShareEqualLists: thousands of policies hold a list that they have in common once, wherever it is written.
func TestPoliciesShareEqualLists(t *testing.T) {
	const lists = "permissions: [voices_read, text_to_speech], allowed_ips: [203.0.113.0/24], probes: [/v1/models]"
	c, err := load(t, "policies:\n- {name: a, service_account: a, schedule: '@daily', sink: {path: a}, "+lists+"}\n- {name: b, service_account: b, schedule: '@daily', sink: {path: b}, "+lists+"}\n")
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Policies[0], c.Policies[1]
	if &a.Settings.Permissions.Names[0] != &b.Settings.Permissions.Names[0] || &a.Settings.AllowedIPs[0] != &b.Settings.AllowedIPs[0] || &a.Probes[0] != &b.Probes[0] {
		t.Error("each policy has lists of its own")
	}
	_, err = load(t, "defaults: {permissions: [voices_reed]}\npolicies:\n- {name: a, service_account: a, schedule: '@daily', sink: {path: a}}\n- {name: b, service_account: b, schedule: '@daily', sink: {path: b}}\n")
	if err == nil || strings.Count(err.Error(), "voices_reed") != 2 {
		t.Errorf("a list with a fault is read for each policy: %v", err)
	}
}
