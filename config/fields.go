package config

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// document is the policy file. The tags are its documentation and its grammar, for both the decoder and the JSON Schema:
//
//	yaml      name
//	doc       meaning, for the reference manual
//	eg, def   example, default
//	need      required
//	requiredUnlessDefault  required in a policy, unless defaults or its profile give it
//	pattern   regular expression that a text matches, most: its greatest length; rule: the same in words; path: a path in Vault
//	words     the accepted texts
//	word      a text that replaces the whole list, or the number
//	min, max  bounds of a number
//	one       exactly one field of the object is set
//	each      name of an entry in messages
//	names     regular expression that the names of entries match, nameRule: the same in words, nameEg: an example
//	sensitive values stay out of messages: a secret may be in the wrong place
type document struct {
	Workspaces []workspace `yaml:"workspaces" each:"workspace" eg:"[{name: default, …}]" doc:"ElevenLabs workspaces. Absent: one named default, from ELEVENLABS_API_KEY and ELEVENLABS_BASE_URL."`
	Defaults   shared      `yaml:"defaults" eg:"{timezone: UTC}" doc:"Values for policies that do not set their own, and whose profile does not."`
	Profiles   profiles    `yaml:"profiles" each:"profile" eg:"{prod: {max_age: 200h}}" names:"^[A-Za-z0-9._-]{1,64}$" nameRule:"1 to 64 of a-z A-Z 0-9 . _ -" nameEg:"prod" doc:"Values by name, for the policies that name the profile: over defaults, under the policy's own. Any field of a policy but name, service_account, sink and profile."`
	Policies   []policy    `yaml:"policies" need:"1" each:"policy" eg:"[{name: tts-prod, …}]" doc:"One entry per rotated key."`

	root *yaml.Node
}

type workspace struct {
	object
	Name    at[string] `yaml:"name" need:"1" eg:"default" pattern:"^[A-Za-z0-9._-]{1,64}$" rule:"1 to 64 of a-z A-Z 0-9 . _ -" doc:"Name that policies use for the workspace."`
	BaseURL at[string] `yaml:"base_url" sensitive:"1" eg:"https://api.elevenlabs.io" def:"https://api.elevenlabs.io" pattern:"^[!-~]+$" rule:"a URL" doc:"Base URL: one of the vendor's, loopback, or an origin in REKEYD_ALLOWED_API_ORIGINS."`
	APIKey  apiKey     `yaml:"api_key" need:"1" one:"1" sensitive:"1" eg:"{env: ELEVENLABS_API_KEY}" doc:"Where the admin key is kept; never the key itself."`
}

type apiKey struct {
	Env   at[string] `yaml:"env" sensitive:"1" eg:"ELEVENLABS_API_KEY" pattern:"^ELEVENLABS_[A-Za-z0-9_]*$" rule:"the name of a variable that starts with ELEVENLABS_" doc:"Environment variable, also with _FILE. Its name starts with ELEVENLABS_."`
	File  at[string] `yaml:"file" sensitive:"1" eg:"/run/secrets/elevenlabs" pattern:"^[^\x00-\x1f\x7f]+$" rule:"a path" doc:"File, read again when it changes."`
	Vault vaultField `yaml:"vault" sensitive:"1" eg:"{path: elevenlabs-admin/default}" doc:"Field of a KV v2 record."`
}

type vaultField struct {
	object
	Mount at[string] `yaml:"mount" sensitive:"1" eg:"secret" def:"secret" path:"1" doc:"KV v2 mount."`
	Path  at[string] `yaml:"path" need:"1" sensitive:"1" eg:"elevenlabs-admin/default" path:"1" doc:"Path below the mount."`
	Field at[string] `yaml:"field" sensitive:"1" eg:"api_key" def:"api_key" pattern:"^[A-Za-z0-9._-]{1,128}$" rule:"1 to 128 of a-z A-Z 0-9 . _ -" doc:"Field that holds the secret."`
}

type policy struct {
	object
	Name           at[string] `yaml:"name" need:"1" eg:"tts-prod" pattern:"^[a-z0-9-]{1,36}$" rule:"1 to 36 of a-z 0-9 -" doc:"Unique name; part of its keys' names."`
	ServiceAccount at[string] `yaml:"service_account" need:"1" eg:"svcacc_9f8b7c6d5e4a3b2c1d0e" pattern:"^[A-Za-z0-9_-]{1,128}$" rule:"1 to 128 of a-z A-Z 0-9 _ -" doc:"Id of the service account (service_account_user_id); several policies may share one."`
	Sink           sink       `yaml:"sink" need:"1" eg:"{path: elevenlabs/tts-prod}" doc:"Where the secret is published."`
	shared
}

// profiles are the profiles by name.
type profiles = map[string]*profile

// profile holds the fields that a profile may set. It names no other profile.
type profile struct {
	object
	common
}

// shared holds the fields that defaults may set: all of a policy but name, service_account and sink.
type shared struct {
	common
	Profile at[string] `yaml:"profile" eg:"prod" pattern:"^[A-Za-z0-9._-]{0,64}$" rule:"up to 64 of a-z A-Z 0-9 . _ -" doc:"Profile whose values hold where the policy sets none. Empty: none, also where defaults name one."`
}

// common holds the fields that a profile may set.
type common struct {
	Workspace         at[string]        `yaml:"workspace" eg:"default" def:"default" pattern:"^[A-Za-z0-9._-]{1,64}$" rule:"1 to 64 of a-z A-Z 0-9 . _ -" doc:"Workspace of the service account."`
	Schedule          at[string]        `yaml:"schedule" requiredUnlessDefault:"1" eg:"0 3 * * 1" pattern:"^[ -~]+$" rule:"a schedule such as 0 3 * * 1" doc:"When the key rotates: five cron fields, @daily and the like, or @every 36h."`
	Timezone          at[string]        `yaml:"timezone" eg:"Europe/Oslo" def:"UTC" pattern:"^[A-Za-z0-9+_/-]+$" rule:"the name of a time zone" doc:"Time zone of the schedule, as the IANA database names it."`
	Splay             at[time.Duration] `yaml:"splay" eg:"10m" def:"0s" doc:"A run starts 0 to splay later, by a delay fixed per policy, so that policies do not all rotate at once."`
	Window            at[time.Duration] `yaml:"window" eg:"4h" doc:"A run that has not started this long after it was due is skipped until the next. Absent or 0: it is caught up at any time."`
	Group             at[string]        `yaml:"group" eg:"tts" pattern:"^[A-Za-z0-9_-]{0,64}$" rule:"up to 64 of a-z A-Z 0-9 _ -" doc:"At most one member of a group is between claim and end of overlap at a time. Their overlap and the longer of their waits together must be shorter than the shortest gap of their schedules."`
	MaxAge            at[time.Duration] `yaml:"max_age" eg:"200h" doc:"While rotations succeed, no enabled key gets older than this. Absent or 0: no limit."`
	Permissions       at[[]at[string]]  `yaml:"permissions" requiredUnlessDefault:"1" eg:"[text_to_speech]" word:"all" pattern:"^[a-z0-9_]{1,64}$" rule:"1 to 64 of a-z 0-9 _" doc:"What the key may do: a list of permissions, or the word all."`
	AllowedIPs        at[[]at[string]]  `yaml:"allowed_ips" eg:"[203.0.113.0/24]" pattern:"^[!-~]{1,64}$" rule:"an IP address or CIDR range" doc:"Addresses that may use the key, as IP or CIDR. Absent: every address."`
	CharacterLimit    at[int64]         `yaml:"character_limit" eg:"100000" min:"1" max:"1000000000000" doc:"Credits per month. Absent: no limit."`
	TTSConcurrency    at[limit]         `yaml:"tts_concurrency_limit" eg:"10" word:"none" max:"1000000000" doc:"Text-to-speech requests at the same time, or none for no limit. Absent: not managed; a new key has what the key that it replaces had."`
	DubConcurrency    at[limit]         `yaml:"dubbing_concurrency_limit" eg:"2" word:"none" max:"1000000000" doc:"The same for dubbing."`
	MusicConcurrency  at[limit]         `yaml:"music_concurrency_limit" eg:"2" word:"none" max:"1000000000" doc:"The same for music."`
	ThirdPartyDisable at[bool]          `yaml:"third_party_disable_allowed" eg:"true" doc:"Whether ElevenLabs may disable the key when it leaks, and its holder by self-disable. Absent: not managed, like the limits above."`
	Overlap           at[time.Duration] `yaml:"overlap" eg:"24h" doc:"How long both keys work. Absent: 24h, or half the schedule's shortest gap if that is less."`
	Quarantine        at[time.Duration] `yaml:"quarantine" eg:"24h" def:"24h" doc:"How long the old key is disabled before it is deleted."`
	WaitUntilIdle     at[time.Duration] `yaml:"wait_until_idle" eg:"1h" def:"0s" doc:"Extends the overlap by at most this while the old key is still in use."`
	WaitUntilUsed     at[time.Duration] `yaml:"wait_until_used" eg:"1h" def:"0s" doc:"Extends the overlap by at most this until the new key is in use."`
	Verify            at[string]        `yaml:"verify" eg:"auto" def:"auto" words:"auto off" doc:"Whether a new key is proven to work before it is published."`
	Probes            at[[]at[string]]  `yaml:"probes" eg:"[/v1/models]" pattern:"^/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,199}$" rule:"a path that starts with /, such as /v1/models" doc:"At most 10 paths. The new key must get 2xx for a GET of each before it is published."`
	OnDrift           at[string]        `yaml:"on_drift" eg:"patch" def:"patch" words:"patch rotate report" doc:"What to do about a key whose settings differ from the policy."`
	Mode              at[string]        `yaml:"mode" eg:"auto" def:"auto" words:"auto manual paused" doc:"What happens without a request: with auto everything, with manual no scheduled runs and no rotation for drift, with paused nothing."`
	Labels            at[labels]        `yaml:"labels" each:"label" eg:"{team: speech}" names:"^([A-Za-z][A-Za-z0-9_]{0,63}|_([A-Za-z0-9][A-Za-z0-9_]{0,62})?)$" nameRule:"1 to 64 of a-z A-Z 0-9 _ that start with neither a digit nor __" nameEg:"team" pattern:"^[^\\p{C}\\p{Zl}\\p{Zp}]*$" most:"64" rule:"at most 64 printable characters" doc:"Up to 8 names and values, for people and metrics: team is label_team of rekeyd_policy_info. A name is 1 to 64 of a-z A-Z 0-9 _ and starts with neither a digit nor __. They are merged with those of profile and defaults: a policy's own value wins, and an empty one removes the label."`
	Adopt             at[string]        `yaml:"adopt" eg:"key_0a1b2c" pattern:"^[A-Za-z0-9_-]{0,128}$" rule:"up to 128 of a-z A-Z 0-9 _ -" doc:"Id of an existing key to take over as current."`
}

type sink struct {
	object
	Mount at[string] `yaml:"mount" eg:"secret" def:"secret" path:"1" doc:"KV v2 mount."`
	Path  at[string] `yaml:"path" need:"1" eg:"elevenlabs/tts-prod" path:"1" doc:"Path below the mount; no two policies share one."`
	Field at[string] `yaml:"field" eg:"api_key" def:"api_key" pattern:"^[A-Za-z0-9._-]{1,128}$" rule:"1 to 128 of a-z A-Z 0-9 . _ -" taken:"1" doc:"Field that holds the secret; other fields of the record stay as they are. Not a name that rekeyd itself writes, such as key_id."`
}

// object is the place of a mapping in the file, and its name in messages.
type object struct {
	Node *yaml.Node
	Who  string
}

func (o *object) put(n *yaml.Node, who string) { o.Node, o.Who = n, who }

// at is a value and its place in the file; node is nil when the file does not set it.
type at[T any] struct {
	Value T
	node  *yaml.Node
}

func (a at[T]) given() bool { return a.node != nil }

// labels are the values by name, each with its place. An empty value removes an inherited label.
type labels = map[string]at[string]

// limit is a number or the word none; given, it is always known.
type limit = elevenlabs.Value[int64]

// field is one row of the grammar, read from the tags of a struct field.
type field struct {
	name, doc, example, fallback, rule, each string
	nameRule, nameExample                    string
	names                                    *regexp.Regexp // of entries; nil: the entries have none
	need, one, sensitive, path               bool
	requiredUnlessDefault                    bool // required in a policy, unless defaults or its profile give it
	pattern                                  *regexp.Regexp
	words                                    []string
	taken                                    []string // names that rekeyd writes into the same record
	word                                     string   // replaces the whole list, or the number
	min, max                                 int64
	most                                     int // characters of a text; 0: as many as the pattern allows
	index                                    []int
	typ                                      reflect.Type
}

// grammar holds the fields of each object of the policy file.
type grammar map[reflect.Type][]field

// newGrammar reads the tags of document and of every type below it.
func newGrammar() grammar {
	g, patterns := grammar{}, map[string]*regexp.Regexp{}
	g.add(reflect.TypeFor[document](), patterns)
	return g
}

// add compiles each pattern once, since that takes most of the time.
func (g grammar) add(t reflect.Type, patterns map[string]*regexp.Regexp) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || g[t] != nil || t.Implements(reflect.TypeFor[leaf]()) {
		return
	}
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("yaml") != "" {
			g[t] = append(g[t], fieldOf(f, patterns))
			g.add(f.Type, patterns)
		}
	}
}

// leaf is implemented by every at.
type leaf interface{ given() bool }

func fieldOf(f reflect.StructField, patterns map[string]*regexp.Regexp) field {
	compiled := func(pattern string) *regexp.Regexp {
		if pattern != "" && patterns[pattern] == nil {
			patterns[pattern] = regexp.MustCompile(pattern)
		}
		return patterns[pattern]
	}
	var words []string
	if w := f.Tag.Get("words"); w != "" {
		words = strings.Fields(w)
	}
	out := field{
		name: f.Tag.Get("yaml"), doc: f.Tag.Get("doc"), example: f.Tag.Get("eg"), fallback: f.Tag.Get("def"),
		rule: f.Tag.Get("rule"), each: f.Tag.Get("each"), need: f.Tag.Get("need") != "", one: f.Tag.Get("one") != "",
		sensitive: f.Tag.Get("sensitive") != "", requiredUnlessDefault: f.Tag.Get("requiredUnlessDefault") != "", words: words,
		word: f.Tag.Get("word"), index: f.Index, typ: f.Type,
	}
	out.names, out.nameRule, out.nameExample = compiled(f.Tag.Get("names")), f.Tag.Get("nameRule"), f.Tag.Get("nameEg")
	if f.Tag.Get("taken") != "" {
		out.taken = ledger.RecordFields()
	}
	pattern := f.Tag.Get("pattern")
	if out.path = f.Tag.Get("path") != ""; out.path {
		pattern = pathPattern
	}
	out.pattern = compiled(pattern)
	out.most, _ = strconv.Atoi(f.Tag.Get("most"))
	out.min, _ = strconv.ParseInt(f.Tag.Get("min"), 10, 64)
	out.max, _ = strconv.ParseInt(f.Tag.Get("max"), 10, 64)
	return out
}
