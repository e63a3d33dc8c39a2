package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// text accepts a scalar that every version of YAML reads as text.
func (d *decoder) text(n *yaml.Node, f field, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		d.misfit(n, f, what, "text")
		return "", false
	}
	switch {
	case f.words != nil && !slices.Contains(f.words, n.Value):
		d.fault(n, "%s is %s, which is not one of its words; write %s", what, quote(n.Value), either(f.words))
	case f.pattern != nil && !f.pattern.MatchString(n.Value) || f.most > 0 && utf8.RuneCountInString(n.Value) > f.most:
		d.patternFault(n, f, what)
	case elevenlabs.LooksSecret(n.Value):
		d.fault(n, "%s looks like a secret, which no policy file may hold; write %s, and replace that secret if others could read it here", what, f.sample())
	case slices.Contains(f.taken, n.Value):
		d.fault(n, "%s is %s, which rekeyd itself writes into the record beside the secret; write another name, such as %s", what, quote(n.Value), f.example)
	default:
		return n.Value, true
	}
	return "", false
}

// patternFault reports text that does not match its pattern.
func (d *decoder) patternFault(n *yaml.Node, f field, what string) {
	shown := "is " + quote(n.Value) + ", which is"
	if f.sensitive {
		shown = "has a value that is"
	}
	problem := shown + " not " + f.rule
	if f.path {
		problem = strings.TrimSuffix(shown, " is") + " " + pathFlaw(n.Value)
	}
	d.fault(n, "%s %s; write one such as %s", what, problem, f.example)
}

// durationPattern is the accepted subset of Go's durations: no sign, no lone point. 0 needs no unit.
const durationPattern = `^(0|([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

var durationShape = regexp.MustCompile(durationPattern)

func (d *decoder) duration(n *yaml.Node, f field, what string) (time.Duration, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && n.ShortTag() != "!!int" {
		d.misfit(n, f, what, "a duration")
		return 0, false
	}
	span, err := time.ParseDuration(n.Value)
	number := n.ShortTag() == "!!int"
	switch {
	case strings.HasPrefix(n.Value, "-"):
		d.fault(n, "%s is %s, which is negative; write a duration such as %s", what, quote(n.Value), f.example)
	case durationShape.MatchString(n.Value) && err != nil:
		d.fault(n, "%s is %s, which is more than a duration can hold; write one such as %s", what, quote(n.Value), f.example)
	case !durationShape.MatchString(n.Value) || number && n.Value != "0":
		d.fault(n, "%s is %s, which is not a duration; write %s", what, quote(n.Value), durationAdvice(n.Value, f.example))
	default:
		return span, true
	}
	return 0, false
}

// durationAdvice converts what Go's durations lack: days, weeks, and numbers without a unit.
func durationAdvice(text, example string) string {
	digits := strings.TrimRight(text, "dDw")
	count, err := strconv.ParseUint(digits, 10, 16)
	switch {
	case err != nil:
		return "one such as " + example
	case digits == text:
		return fmt.Sprintf("the unit too: %ds, %dm or %dh", count, count, count)
	case strings.HasSuffix(text, "w"):
		return fmt.Sprintf("%dh", count*7*24)
	}
	return fmt.Sprintf("%dh", count*24)
}

var numberShape = regexp.MustCompile(`^(0|[1-9][0-9]{0,17})$`)

// number accepts decimal digits only: YAML's octal, hexadecimal and underscores mean different things to different readers.
func (d *decoder) number(n *yaml.Node, f field, what string) (int64, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && n.ShortTag() != "!!float" {
		d.misfit(n, f, what, "a whole number")
		return 0, false
	}
	number, err := strconv.ParseInt(n.Value, 10, 64)
	if !numberShape.MatchString(n.Value) || err != nil || number < f.min || number > f.max {
		advice := "write one such as " + f.example
		if f.word != "" {
			advice += ", or " + f.word + " for no limit"
		}
		d.fault(n, "%s is %s, which is not a whole number from %d to %d in plain digits; %s", what, n.Value[:min(len(n.Value), 40)], f.min, f.max, advice)
		return 0, false
	}
	return number, true
}

// limit is a number, or the field's word for no limit.
func (d *decoder) limit(n *yaml.Node, f field, what string) (limit, bool) {
	number := n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float")
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value == f.word:
		return elevenlabs.None[int64](), true
	case !number:
		d.misfit(n, f, what, "a whole number or the word "+f.word)
		return limit{}, false
	}
	value, ok := d.number(n, f, what)
	return elevenlabs.Some(value), ok
}

// boolean accepts the two spellings that every version of YAML reads alike.
func (d *decoder) boolean(n *yaml.Node, f field, what string) (value, ok bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		d.misfit(n, f, what, "true or false")
		return false, false
	}
	return n.Value == "true", true
}

// texts decodes a list of texts, or the word that replaces it.
func (d *decoder) texts(n *yaml.Node, f field, what string) []at[string] {
	if f.word != "" && n.Kind == yaml.ScalarNode && n.Value == f.word {
		return []at[string]{{f.word, n}}
	}
	if n.Kind != yaml.SequenceNode {
		wanted := "a list"
		if f.word != "" {
			wanted += " or the word " + f.word
		}
		d.misfit(n, f, what, wanted)
		return nil
	}
	if len(n.Content) == 0 {
		advice := ", or remove the field"
		if f.requiredUnlessDefault {
			advice = ""
		}
		d.fault(n, "%s is an empty list; write one such as %s%s", what, f.example, advice)
	}
	out := make([]at[string], 0, len(n.Content))
	f.example = strings.Trim(f.example, "[]")
	for _, entry := range n.Content {
		if !d.plain(entry, what) {
			continue
		}
		if f.word != "" && entry.Value == f.word {
			d.fault(entry, "%s has %s as an entry of its list; write %s: %s to allow everything", what, f.word, f.name, f.word)
		} else if text, ok := d.text(entry, f, what); ok {
			out = append(out, at[string]{text, entry})
		}
	}
	return out
}

const maxLabels = 8

// labels decodes a mapping of names and texts that the user chooses.
func (d *decoder) labels(n *yaml.Node, f field, what string) (labels, bool) {
	if n.Kind != yaml.MappingNode {
		d.misfit(n, f, what, "a mapping")
		return nil, false
	}
	switch count := len(n.Content) / 2; {
	case count == 0:
		d.fault(n, "%s is an empty mapping; write one such as %s, or remove the field", what, f.example)
	case count > maxLabels:
		d.fault(n, "%s has %d names; write at most %d", what, count, maxLabels)
		return nil, false
	}
	out := make(labels, len(n.Content)/2)
	f.example = "speech"
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := d.key(n.Content[i], f, what)
		value := n.Content[i+1]
		switch first := out[name]; {
		case !ok || !d.plain(value, what):
		case first.given():
			d.fault(n.Content[i], "%s.%s is given twice, first on line %d; remove one", what, name, first.node.Line)
		default:
			text, _ := d.text(value, f, what+"."+name)
			out[name] = at[string]{text, value}
		}
	}
	return out, true
}

// misfit reports a value of the wrong type.
func (d *decoder) misfit(n *yaml.Node, f field, what, wanted string) {
	scalar := n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null"
	switch {
	case f.words != nil:
		d.fault(n, "%s is %s, not a word; write %s", what, describe(n, false), either(f.words))
	case wanted == "text" && scalar && !f.sensitive:
		d.fault(n, "%s is %s, not text; put it in quotes", what, describe(n, false))
	default:
		d.fault(n, "%s is %s, not %s; write one such as %s", what, describe(n, f.sensitive), wanted, f.sample())
	}
}

// describe names the kind of a node, and its value unless that is sensitive.
func describe(n *yaml.Node, sensitive bool) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	kinds := map[string]string{"!!bool": "the boolean", "!!int": "the number", "!!float": "the number", "!!timestamp": "the date", "!!str": "the text"}
	switch kind := kinds[n.ShortTag()]; {
	case kind == "":
		return "nothing"
	case sensitive:
		return strings.Replace(kind, "the", "a", 1)
	default:
		return kind + " " + quote(n.Value)
	}
}

// sample is the field's example as YAML.
func (f field) sample() string {
	if strings.Contains(f.example, " ") && !strings.ContainsAny(f.example[:1], "[{") {
		return strconv.Quote(f.example)
	}
	return f.example
}
