package config

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// LoadEnv reads the environment through env. An empty variable counts as unset: a compose file passes unset variables
// on as empty.
//
// The error is a [Faults] with everything that is wrong. The Env is usable for reporting even then: a variable
// that cannot be parsed has its default.
func LoadEnv(env envconfig.Lookuper) (Env, error) { return loadEnv(env, (*envLoader).combinations) }

// LoadAPI reads the environment of a command that calls ElevenLabs alone, for which neither policies nor Vault are needed. The
// workspace is the one that the environment describes.
func LoadAPI(env envconfig.Lookuper) (Env, Workspace, error) {
	e, err := loadEnv(env, (*envLoader).api)
	return e, Workspace{"default", e.BaseURL, KeySource{Secret: e.APIKey}}, err
}

// LoadListener reads the environment of a command that asks the daemon beside it, which needs neither policies nor Vault.
func LoadListener(env envconfig.Lookuper) (Env, error) { return loadEnv(env, func(*envLoader) {}) }

// HasPolicies reports whether the environment names a policy file, or holds one.
func HasPolicies(env envconfig.Lookuper) bool {
	_, file := nonEmpty(env).Lookup("REKEYD_POLICY_FILE")
	_, text := nonEmpty(env).Lookup("REKEYD_POLICIES")
	return file || text
}

func loadEnv(env envconfig.Lookuper, combinations func(*envLoader)) (Env, error) {
	l := envLoader{lookup: nonEmpty(OrBao(env)), set: nonEmpty(env), failed: map[string]bool{}}
	out := reflect.ValueOf(&l.env).Elem()
	for i := range out.NumField() {
		l.load(variableOf(out.Type().Field(i)), out.Field(i))
	}
	if l.env.VaultAuthMount == "" && !strings.HasPrefix(l.env.VaultAuth, "token") {
		l.env.VaultAuthMount = l.env.VaultAuth // as usual
	}
	combinations(&l)
	return l.env, l.faults.asError()
}

// nonEmpty hides empty variables.
func nonEmpty(env envconfig.Lookuper) envconfig.Lookuper {
	return envconfig.LookuperFunc(func(key string) (string, bool) {
		value, ok := env.Lookup(key)
		return value, ok && value != ""
	})
}

// OrBao looks VAULT_X up as BAO_X too, OpenBao's name for it, where neither VAULT_X nor VAULT_X_FILE is set: one of the two
// names a secret's file, and a value under the other name must not join it.
func OrBao(env envconfig.Lookuper) envconfig.Lookuper {
	return envconfig.LookuperFunc(func(key string) (string, bool) {
		name, isVaults := strings.CutPrefix(strings.TrimSuffix(key, "_FILE"), "VAULT_")
		value, _ := env.Lookup("VAULT_" + name)
		file, _ := env.Lookup("VAULT_" + name + "_FILE")
		if !isVaults || value != "" || file != "" {
			return env.Lookup(key)
		}
		return env.Lookup("BAO_" + strings.TrimPrefix(key, "VAULT_"))
	})
}

// UnknownVariables returns a warning for each entry of environ ("NAME=value") that has no effect: one that starts with REKEYD_ and
// is not a variable of rekeyd, most likely a typing error, and one of OpenBao that one of Vault overrides.
func UnknownVariables(environ []string) []Fault {
	const prefix = "REKEYD_"
	known := map[string]bool{}
	var ours []string // without the prefix, which would count as resemblance
	for _, v := range variables() {
		for _, n := range v.names() {
			known[n] = true
			if rest, ok := strings.CutPrefix(n, prefix); ok {
				ours = append(ours, rest)
			}
		}
	}
	given := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		given[name] = value
	}
	var warnings []Fault
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if rest, ok := strings.CutPrefix(name, "BAO_"); ok && known["VAULT_"+rest] && given["VAULT_"+rest] != "" && given["VAULT_"+rest] != value {
			warnings = append(warnings, Fault{Text: name + " has no effect, because VAULT_" + rest + " is set; unset one of them"})
		}
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || known[name] {
			continue
		}
		advice := "see rekeyd help env"
		if n := nearest(rest, ours); n != "" {
			advice = "did you mean " + prefix + n + "?"
		}
		warnings = append(warnings, Fault{Text: name + " is not a variable of rekeyd and has no effect; " + advice})
	}
	return warnings
}

// envLoader collects the variables and their faults.
type envLoader struct {
	lookup envconfig.Lookuper
	set    envconfig.Lookuper // without OpenBao's names
	env    Env
	faults Faults
	failed map[string]bool // variables with a fault, which combinations does not report again
}

func (l *envLoader) fault(name, format string, args ...any) {
	l.failed[name] = true
	l.faults = append(l.faults, Fault{Text: l.given(name) + " " + fmt.Sprintf(format, args...)})
}

// given is the name under which a variable was set.
func (l *envLoader) given(name string) string {
	if rest, ok := strings.CutPrefix(name, "VAULT_"); ok {
		_, found := l.lookup.Lookup(name)
		if _, set := l.set.Lookup(name); found && !set {
			return "BAO_" + rest
		}
	}
	return name
}

// load sets one field. go-envconfig gets one variable at a time, since it stops at the first error.
func (l *envLoader) load(v variable, out reflect.Value) {
	value, err := v.process(l.lookup)
	text, given := l.lookup.Lookup(v.name)
	switch {
	case err == nil && !v.sensitive && !v.secret() && elevenlabs.LooksSecret(text):
		l.fault(v.name, "looks like a secret, which does not belong there; see rekeyd help env for what does")
	case err == nil && v.allows(value, text):
	default:
		l.fault(v.name, "%s; %s", v.misfit(text), v.wanted())
	}
	if l.failed[v.name] {
		value, _ = v.process(envconfig.MapLookuper(nil)) // its default, which fits
	}
	out.Set(value)
	if source, ok := out.Addr().Interface().(*SecretSource); ok {
		l.loadSecret(v, source, given)
	}
}

// process parses the variable, or its default where env does not have it.
func (v variable) process(env envconfig.Lookuper) (reflect.Value, error) {
	one := reflect.New(reflect.StructOf([]reflect.StructField{v.field}))
	err := envconfig.ProcessWith(context.Background(), &envconfig.Config{Target: one.Interface(), Lookuper: env})
	return one.Elem().Field(0), err
}

// loadSecret handles the _FILE variant and reads the secret once, to report a bad one at the start.
func (l *envLoader) loadSecret(v variable, source *SecretSource, given bool) {
	name := v.name
	if path, ok := l.lookup.Lookup(v.name + "_FILE"); ok {
		if given {
			l.fault(v.name, "and %s are both set; unset one of them", l.given(v.name+"_FILE"))
			return
		}
		name, *source = v.name+"_FILE", SecretFile(path)
	}
	if flaw := source.flaw(context.Background(), v.least); flaw != "" {
		l.fault(name, "%s", flaw)
	}
}

// allows reports whether a parsed value is one of the words and within the bounds.
func (v variable) allows(value reflect.Value, text string) bool {
	switch x := value.Interface().(type) {
	case time.Duration:
		return float64(x) >= v.min && float64(x) <= v.max
	case int:
		return float64(x) >= v.min && float64(x) <= v.max
	case float64:
		return x >= v.min && x <= v.max // NaN is neither
	case string:
		return text == "" || v.words == nil || slices.Contains(v.words, x)
	}
	return true
}

// misfit describes the refused value.
func (v variable) misfit(text string) string {
	shown := "is " + quote(text)
	if v.sensitive {
		shown = "has a value"
	}
	kind := "not " + v.kind
	switch x := v.field.Type; {
	case x == reflect.TypeFor[time.Duration]():
		if d, err := time.ParseDuration(text); err == nil && d <= 0 {
			kind = "not positive"
		} else if err == nil && float64(d) > v.max {
			kind = "too long"
		} else if err == nil {
			kind = "too short"
		}
	case x.Kind() == reflect.Int || x.Kind() == reflect.Float64:
		if _, err := strconv.ParseFloat(text, 64); err == nil && (x.Kind() == reflect.Float64 || !strings.ContainsAny(text, ".eExXpPnN")) {
			kind = "out of range"
		}
	}
	return shown + ", which is " + kind
}
