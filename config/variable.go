package config

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// variable is one field of Env, read from its tags.
type variable struct {
	field     reflect.StructField
	name      string
	fallback  string // the default, as written in the environment
	usual     string
	help      string
	words     []string
	min, max  float64 // of a duration in nanoseconds
	least     int     // fewest characters of a secret that is sent as a token; 0: any bytes
	sensitive bool
}

func variableOf(f reflect.StructField) variable {
	name, fallback, _ := strings.Cut(f.Tag.Get("env"), ",default=")
	v := variable{field: f, name: name, fallback: fallback, usual: f.Tag.Get("usual"), help: f.Tag.Get("help")}
	if words := f.Tag.Get("words"); words != "" {
		v.words = strings.Fields(words)
	}
	v.min, v.max = bound(f, "min"), bound(f, "max")
	v.least, _ = strconv.Atoi(f.Tag.Get("least"))
	v.sensitive = f.Tag.Get("sensitive") != ""
	return v
}

func variables() []variable {
	t := reflect.TypeFor[Env]()
	all := make([]variable, t.NumField())
	for i := range all {
		all[i] = variableOf(t.Field(i))
	}
	return all
}

func (v variable) secret() bool { return v.field.Type == reflect.TypeFor[SecretSource]() }

// names returns the variable and, for a secret, its _FILE variant.
func (v variable) names() []string {
	if v.secret() {
		return []string{v.name, v.name + "_FILE"}
	}
	return []string{v.name}
}

// bound is the number in a tag, in nanoseconds for a duration.
func bound(f reflect.StructField, tag string) float64 {
	text := f.Tag.Get(tag)
	if d, err := time.ParseDuration(text); err == nil && f.Type == reflect.TypeFor[time.Duration]() {
		return float64(d)
	}
	n, _ := strconv.ParseFloat(text, 64)
	return n
}

// kind names the variable's type, to follow "which is not".
func (v variable) kind() string {
	switch {
	case v.words != nil:
		return "one of its words"
	case v.field.Type == reflect.TypeFor[time.Duration]():
		return "a duration"
	case v.field.Type.Kind() == reflect.Int:
		return "a whole number"
	case v.field.Type.Kind() == reflect.Float64:
		return "a number"
	}
	return "true or false"
}

// wanted is the advice on what to write instead.
func (v variable) wanted() string {
	switch {
	case v.words != nil:
		return "write " + either(v.words)
	case v.field.Type == reflect.TypeFor[time.Duration]():
		return fmt.Sprintf("write a duration from %s to %s, such as %s", short(time.Duration(v.min)), short(time.Duration(v.max)), v.fallback)
	case v.field.Type.Kind() == reflect.Int:
		return fmt.Sprintf("write a whole number from %.0f to %.0f", v.min, v.max)
	case v.field.Type.Kind() == reflect.Float64:
		return fmt.Sprintf("write a number from %v to %.0f", v.min, v.max)
	}
	return "write true or false"
}

// described returns the columns of the help: names, default and meaning.
func (v variable) described() (names, fallback, help string) {
	fallback = v.fallback
	if v.usual != "" {
		fallback = v.usual
	}
	help = v.help
	switch {
	case v.words != nil:
		help += " (" + strings.Join(v.words, ", ") + ")"
	case v.field.Type == reflect.TypeFor[time.Duration]():
		help += fmt.Sprintf(" (%s to %s)", short(time.Duration(v.min)), short(time.Duration(v.max)))
	case v.max > 0:
		help += fmt.Sprintf(" (%v to %.0f)", v.min, v.max)
	}
	if rest, ok := strings.CutPrefix(v.name, "VAULT_"); ok {
		help += "; else BAO_" + rest
	}
	return strings.Join(v.names(), ", "), fallback, help
}

// WriteHelp writes the table of every variable, for a terminal.
func WriteHelp(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "VARIABLE\tDEFAULT\tMEANING") // the writer keeps its error until Flush
	for _, v := range variables() {
		names, fallback, help := v.described()
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", names, fallback, help)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing help: %w", err)
	}
	return nil
}
