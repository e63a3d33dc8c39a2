package config

import (
	"cmp"
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
	bounds    string  // the same in words; "" without
	kind      string  // the type in words, to follow "which is not"
	least     int     // fewest characters of a secret that is sent as a token; 0: any bytes
	sensitive bool
}

func variableOf(f reflect.StructField) variable {
	name, fallback, _ := strings.Cut(f.Tag.Get("env"), ",default=")
	v := variable{field: f, name: name, fallback: fallback, usual: f.Tag.Get("usual"), help: f.Tag.Get("help"),
		min: bound(f, "min"), max: bound(f, "max"), kind: "true or false"}
	if v.max > 0 {
		v.bounds = fmt.Sprintf("%v to %.0f", v.min, v.max)
	}
	switch words := f.Tag.Get("words"); {
	case words != "":
		v.words, v.kind = strings.Fields(words), "one of its words"
	case f.Type == reflect.TypeFor[time.Duration]():
		v.bounds, v.kind = FormatDuration(time.Duration(v.min))+" to "+FormatDuration(time.Duration(v.max)), "a duration"
	case f.Type.Kind() == reflect.Int:
		v.kind = "a whole number"
	case f.Type.Kind() == reflect.Float64:
		v.kind = "a number"
	}
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

// wanted is the advice on what to write instead.
func (v variable) wanted() string {
	switch {
	case v.words != nil:
		return "write " + either(v.words)
	case v.bounds == "":
		return "write true or false"
	case v.field.Type == reflect.TypeFor[time.Duration]():
		return "write a duration from " + v.bounds + ", such as " + v.fallback
	}
	return "write " + v.kind + " from " + v.bounds
}

// described returns the columns of the help: names, default and meaning.
func (v variable) described() (names, fallback, help string) {
	help = v.help
	switch {
	case v.words != nil:
		help += " (" + strings.Join(v.words, ", ") + ")"
	case v.bounds != "":
		help += " (" + v.bounds + ")"
	}
	if rest, ok := strings.CutPrefix(v.name, "VAULT_"); ok {
		help += "; else BAO_" + rest
	}
	return strings.Join(v.names(), ", "), cmp.Or(v.usual, v.fallback), help
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
