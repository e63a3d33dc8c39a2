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

// LoadEnv reads the environment through env. A variable set to nothing counts as unset, as where a compose file
// passes on what is not there.
//
// The error is a [Faults] with everything that is wrong. The Env is usable for reporting even then: a variable
// that could not be parsed has its default.
func LoadEnv(env envconfig.Lookuper) (Env, error) {
	l := envLoader{lookup: nonEmpty(env), failed: map[string]bool{}}
	out := reflect.ValueOf(&l.env).Elem()
	for i := range out.NumField() {
		l.load(variableOf(out.Type().Field(i)), out.Field(i))
	}
	if l.env.VaultAuthMount == "" {
		l.env.VaultAuthMount = usualMount(l.env.VaultAuth)
	}
	l.combinations()
	return l.env, l.faults.asError()
}

// nonEmpty hides variables that are set to nothing.
func nonEmpty(env envconfig.Lookuper) envconfig.Lookuper {
	return envconfig.LookuperFunc(func(key string) (string, bool) {
		value, ok := env.Lookup(key)
		return value, ok && value != ""
	})
}

// UnknownVariables returns a warning for each entry of environ ("NAME=value") that starts with REKEYD_ and means
// nothing to rekeyd: most likely a typing error.
func UnknownVariables(environ []string) []Fault {
	var names []string
	for _, v := range variables() {
		names = append(names, v.names()...)
	}
	known := make(map[string]bool, len(names))
	for _, n := range names {
		known[n] = true
	}
	var warnings []Fault
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "REKEYD_") || known[name] {
			continue
		}
		advice := "see rekeyd help env"
		if n := nearest(name, names); n != "" {
			advice = "did you mean " + n + "?"
		}
		warnings = append(warnings, Fault{Text: name + " is not a variable of rekeyd and has no effect; " + advice})
	}
	return warnings
}

// envLoader gathers the variables and everything that is wrong with them.
type envLoader struct {
	lookup envconfig.Lookuper
	env    Env
	faults Faults
	failed map[string]bool // variables with a fault: combinations do not complain about them again
}

func (l *envLoader) fault(name, format string, args ...any) {
	l.failed[name] = true
	l.faults = append(l.faults, Fault{Text: name + " " + fmt.Sprintf(format, args...)})
}

// load sets one field. Each variable is given to go-envconfig alone, since it stops at its first error.
func (l *envLoader) load(v variable, out reflect.Value) {
	one := reflect.New(reflect.StructOf([]reflect.StructField{v.field}))
	err := envconfig.ProcessWith(context.Background(), &envconfig.Config{Target: one.Interface(), Lookuper: l.lookup})
	value := one.Elem().Field(0)
	text, given := l.lookup.Lookup(v.name)
	switch {
	case err == nil && !v.hush && !v.secret() && elevenlabs.LooksSecret(text):
		l.fault(v.name, "looks like a secret, which does not belong there; see rekeyd help env for what does")
		l.setDefault(v, out)
	case err == nil && v.allows(value, text):
		out.Set(value)
	default:
		l.fault(v.name, "%s; %s", v.misfit(text), v.wanted())
		l.setDefault(v, out)
	}
	if source, ok := out.Addr().Interface().(*SecretSource); ok {
		l.loadSecret(v, source, given)
	}
}

// setDefault decodes the variable's default, as if it were unset.
func (l *envLoader) setDefault(v variable, out reflect.Value) {
	one := reflect.New(reflect.StructOf([]reflect.StructField{v.field}))
	unset := &envconfig.Config{Target: one.Interface(), Lookuper: envconfig.MapLookuper(nil)}
	if err := envconfig.ProcessWith(context.Background(), unset); err == nil {
		out.Set(one.Elem().Field(0))
	}
}

// loadSecret considers the _FILE variant and looks at the secret once, so that a bad one is found now.
func (l *envLoader) loadSecret(v variable, source *SecretSource, given bool) {
	name := v.name
	if path, ok := l.lookup.Lookup(v.name + "_FILE"); ok {
		if given {
			l.fault(v.name, "and %s_FILE are both set; unset one of them", v.name)
			return
		}
		name, *source = v.name+"_FILE", SecretFile(path)
	}
	if flaw := source.flaw(context.Background(), v.least); flaw != "" {
		l.fault(name, "%s", flaw)
	}
}

// allows reports whether a value that could be parsed is also within its words and bounds.
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

// misfit describes the value that was refused.
func (v variable) misfit(text string) string {
	shown := "is " + quote(text)
	if v.hush {
		shown = "has a value"
	}
	kind := "not " + v.kind()
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
