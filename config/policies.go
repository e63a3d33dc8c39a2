package config

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"
	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// Config is a policy file without faults.
type Config struct {
	Policies   []plan.Policy // in the order of the file
	Workspaces []Workspace   // in the order of the file
	Warnings   []Fault       // what is allowed but probably a mistake
	Digest     string        // SHA-256 of the text, in hex: equal texts are the same configuration
}

// PolicyNames returns the names in the order of the file.
func (c *Config) PolicyNames() []string {
	return namesOf(c.Policies, func(p plan.Policy) string { return p.Name })
}

// WorkspaceNames returns the names in the order of the file.
func (c *Config) WorkspaceNames() []string {
	return namesOf(c.Workspaces, func(w Workspace) string { return w.Name })
}

// NoWorkspace is the fault of a name that no workspace has.
func (c *Config) NoWorkspace(name string) Faults {
	return Faults{{Text: fmt.Sprintf("there is no workspace %q; %s", name, Suggestion(name, c.WorkspaceNames()))}}
}

func namesOf[T any](all []T, name func(T) string) []string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = name(one)
	}
	return names
}

// LoadPolicies reads the policy file, and the files that it names, until ctx ends. env sets the limits, and lookup finds
// the variables that the workspaces' api_key names. The error is a [Faults] with every fault; a file with a fault is not
// used at all.
func LoadPolicies(ctx context.Context, src Source, env Env, lookup envconfig.Lookuper) (*Config, error) {
	return loadPolicies(ctx, src, newLoader(src.name(), env, nonEmpty(lookup)))
}

// CheckPolicies reads the policy file alone, with the limits at their defaults: of no workspace is the admin key looked up,
// and without workspaces there is the one named default.
func CheckPolicies(ctx context.Context, src Source) (*Config, error) {
	env, _ := loadEnv(envconfig.MapLookuper(nil), func(*envLoader) {}) // without variables, none is faulty
	return loadPolicies(ctx, src, newLoader(src.name(), env, nil))
}

// ReadPolicies reads the policy file that the environment names, within its limits, and needs no other variable: nothing else that
// is wrong with the environment matters, and of no workspace is the admin key looked up.
func ReadPolicies(ctx context.Context, lookup envconfig.Lookuper) (*Config, error) {
	env, _ := LoadListener(lookup) // a faulty variable has its default
	src := env.Source()
	return loadPolicies(ctx, src, newLoader(src.name(), env, nil))
}

func loadPolicies(ctx context.Context, src Source, l *loader) (*Config, error) {
	text, err := src.Read(ctx)
	if err != nil {
		return nil, Faults{src.unread(err, l.lookup == nil || l.env.Policies != "" || l.env.PolicyFile != "" && l.env.PolicyFile != src.Path)}
	}
	root, fault := parse(src.name(), text)
	if fault != nil {
		return nil, Faults{*fault}
	}
	doc := decode(l.report, l.grammar, root)
	if doc == nil {
		return nil, l.sorted()
	}
	l.inherited = keysOf(doc.root, "defaults")
	l.workspaces(ctx, doc.Workspaces, member(doc.root, "workspaces") != nil)
	l.config.Policies = make([]plan.Policy, 0, len(doc.Policies))
	for i := range doc.Policies {
		l.policy(&doc.Policies[i], doc)
	}
	l.groups()
	if err := l.sorted().asError(); err != nil {
		return nil, err
	}
	inOrder(l.config.Warnings)
	sum := sha256.Sum256(text)
	config := l.config // a pointer into the loader would keep the whole YAML tree
	config.Digest = hex.EncodeToString(sum[:])
	return &config, nil
}

// loader is the second pass: it resolves the document into policies and checks their meaning.
type loader struct {
	*report
	grammar   grammar
	inherited map[string]bool // fields that defaults give

	env     Env
	lookup  envconfig.Lookuper // nil: admin keys are not looked up
	config  Config
	allowed map[string]bool // origins
	known   []string        // permissions
	parser  schedule.Parser
	gaps    schedule.Gaps
	timings map[[2]string]timing // by expression and zone
	lists   map[string]any       // by field and content

	// Seen so far, to find duplicates.
	workspaceLines        map[string]int // line of the workspace
	names, sinks, adopted map[string]*policy
	workspacesUnsure      bool // a workspace has no usable name, so no workspace is reported as unknown

	adminKeys map[string][]adminPlace  // by path
	members   map[string][]groupMember // by group
}

func newLoader(file string, env Env, lookup envconfig.Lookuper) *loader {
	return &loader{
		report: &report{file: file}, grammar: newGrammar(), env: env, lookup: lookup, allowed: allowedOrigins(env),
		known: elevenlabs.KnownPermissions(), timings: map[[2]string]timing{}, lists: map[string]any{},
		workspaceLines: map[string]int{}, names: map[string]*policy{}, sinks: map[string]*policy{}, adopted: map[string]*policy{},
		adminKeys: map[string][]adminPlace{}, members: map[string][]groupMember{},
	}
}

// inherit takes the fields that are not set, and each label.
func (c *common) inherit(from *common) {
	given := c.Labels
	own, inherited := reflect.ValueOf(c).Elem(), reflect.ValueOf(from).Elem()
	for i := range own.NumField() {
		if own.Field(i).IsZero() {
			own.Field(i).Set(inherited.Field(i))
		}
	}
	if given.given() && from.Labels.given() {
		c.Labels.Value = maps.Clone(from.Labels.Value)
		maps.Copy(c.Labels.Value, given.Value)
	}
}

// inherit takes what the policy does not set from its profile, then from defaults.
func (l *loader) inherit(p *policy, doc *document) {
	if !p.Profile.given() {
		p.Profile = doc.Defaults.Profile
	}
	var from *profile
	known := true
	if name := p.Profile.Value; name != "" {
		if from, known = doc.Profiles[name]; known {
			p.inherit(&from.common)
		} else if !l.full() {
			l.fault(p.Profile.node, "%sprofile is %s, which is not defined; define it under profiles%s", p.prefix(), quote(name), suggestions(name, doc.Profiles))
		}
	}
	p.inherit(&doc.Defaults.common)
	if p.Profile.given() && known {
		l.required(p, from)
	}
}

// suggestions completes a sentence about an unknown profile.
func suggestions(name string, known profiles) string {
	if len(known) == 0 {
		return ""
	}
	return "; " + Suggestion(name, slices.Collect(maps.Keys(known)))
}

// required reports what the policy lacks although it names a profile.
func (l *loader) required(p *policy, from *profile) {
	for _, f := range l.grammar[reflect.TypeFor[policy]()] {
		switch {
		case !f.requiredUnlessDefault || member(p.Node, f.name) != nil || l.inherited[f.name]:
		case from == nil:
			l.fault(p.Node, "%s%s is missing; add %s: %s", p.prefix(), f.name, f.name, f.sample())
		case from.Node != nil && member(from.Node, f.name) == nil:
			l.fault(p.Node, "%s%s is missing, in profile %s too; add %s: %s", p.prefix(), f.name, quote(p.Profile.Value), f.name, f.sample())
		}
	}
}

// labels drops those with an empty value, which for Prometheus do not exist.
func (l *loader) labels(p *policy) map[string]string {
	var out map[string]string // nil without labels
	for name, value := range p.Labels.Value {
		switch {
		case value.Value == "":
		case out == nil:
			out = map[string]string{name: value.Value}
		default:
			out[name] = value.Value
		}
	}
	if len(out) > maxLabels {
		l.fault(p.Labels.node, "%slabels has %d names, with those of profile and defaults; write at most %d", p.prefix(), len(out), maxLabels)
	}
	return out
}

// or returns the value, or fallback if the file does not set it.
func (a at[T]) or(fallback T) T {
	if a.given() {
		return a.Value
	}
	return fallback
}

// where returns the node to point at: the value's, or the object's if the value is absent.
func (a at[T]) where(object *yaml.Node) *yaml.Node {
	if a.given() {
		return a.node
	}
	return object
}

// policy checks one policy and adds it to the config.
func (l *loader) policy(p *policy, doc *document) {
	if p.Node == nil { // not a mapping: reported by the first pass
		return
	}
	l.inherit(p, doc)
	l.unique(l.names, p.Name, "name", p.Name.Value, p)
	l.workspaceOf(p)
	l.config.Policies = append(l.config.Policies, plan.Policy{
		Name: p.Name.Value, Workspace: p.Workspace.or("default"), ServiceAccount: p.ServiceAccount.Value,
		Splay: p.Splay.Value, Window: p.Window.Value, Group: p.Group.Value, MaxAge: p.MaxAge.Value,
		Quarantine: p.Quarantine.or(24 * time.Hour), WaitUntilIdle: p.WaitUntilIdle.Value,
		WaitUntilUsed: p.WaitUntilUsed.Value, Probes: once(l, "probes", p, p.Probes, l.probes),
		Verify:  p.Verify.or("auto") == "auto",
		OnDrift: plan.OnDrift(p.OnDrift.or(string(plan.DriftPatch))),
		Mode:    plan.Mode(p.Mode.or(string(plan.ModeAuto))), Adopt: p.Adopt.Value,
		Sink: p.Sink.resolve(), Settings: l.settings(p), Labels: l.labels(p),
	})
	out := &l.config.Policies[len(l.config.Policies)-1]
	l.sink(p, out)
	if p.Adopt.Value != "" {
		l.unique(l.adopted, p.Adopt, "adopt", p.Adopt.Value, p)
	}
	l.durations(p)
	if t, ok := l.timing(p); ok {
		out.Schedule = t.schedule
		out.Overlap = p.Overlap.or(min(24*time.Hour, t.shortest/2))
		l.adminOverlap(p, out)
		l.relations(p, out, t)
	}
}

// prefix starts every sentence about the policy.
func (p *policy) prefix() string { return p.Who + ": " }

// unique refuses a second policy with the same value, and names the first.
func (l *loader) unique(seen map[string]*policy, a at[string], name, value string, p *policy) {
	if !a.given() {
		return
	}
	if first := seen[value]; first != nil {
		l.fault(a.node, "%s%s is %s, which %s on line %d has too; give each its own", p.prefix(), name, quote(value), first.Who, first.Node.Line)
		return
	}
	seen[value] = p
}

// once reads a list that policies have in common for the first of them only, so that all hold the same. One with a fault is read for each.
func once[T any](l *loader, field string, p *policy, list at[[]at[string]], read func(*policy) T) T {
	key := field + " " + strings.Join(namesOf(list.Value, func(text at[string]) string { return text.Value }), " ")
	if known, ok := l.lists[key].(T); ok {
		return known
	}
	faults := len(l.faults)
	value := read(p)
	if len(l.faults) == faults {
		l.lists[key] = value
	}
	return value
}

// settings checks the configurable properties of the key.
func (l *loader) settings(p *policy) elevenlabs.Settings {
	s := elevenlabs.Settings{Permissions: once(l, "permissions", p, p.Permissions, l.permissions), AllowedIPs: once(l, "ips", p, p.AllowedIPs, l.prefixes)}
	if p.CharacterLimit.given() {
		limit := p.CharacterLimit.Value
		s.CharacterLimit = &limit
	}
	s.TTSConcurrency, s.DubbingConcurrency, s.MusicConcurrency = p.TTSConcurrency.Value, p.DubConcurrency.Value, p.MusicConcurrency.Value
	if p.ThirdPartyDisable.given() {
		s.ThirdPartyDisable = elevenlabs.Some(p.ThirdPartyDisable.Value)
	}
	return s
}

func (l *loader) permissions(p *policy) elevenlabs.Permissions {
	var out elevenlabs.Permissions
	seen := map[string]bool{}
	for _, name := range p.Permissions.Value {
		switch {
		case name.Value == "all":
			out.All = true
		case seen[name.Value]:
		case !slices.Contains(l.known, name.Value) && !l.env.AllowUnknownPermissions:
			if !l.full() {
				l.fault(name.node, "%spermissions holds %s, which this build does not know; %s (REKEYD_ALLOW_UNKNOWN_PERMISSIONS=true accepts it)", p.prefix(), quote(name.Value), Suggestion(name.Value, l.known))
			}
		default:
			seen[name.Value] = true
			out.Names = append(out.Names, name.Value)
		}
	}
	return out
}

// FormatDuration writes a duration as a person does: 24h, not 24h0m0s.
func FormatDuration(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0 && d < time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	case d%time.Minute == 0:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}
