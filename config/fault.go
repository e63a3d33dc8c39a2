package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// Fault is one error or warning about the configuration, as a sentence for a person.
type Fault struct {
	File         string // the policy file, or the variable that holds it; "" for the environment
	Line, Column int    // from 1; 0 if it is not known
	Text         string
}

// Error returns the sentence with its place. It hides text that looks like a secret, which may have been pasted into the
// wrong field.
func (f Fault) Error() string {
	text := f.Text
	if place := f.Place(); place != "" {
		text = place + ": " + text
	}
	return secret.HideShapes(text)
}

// Place returns file, line and column, as far as they are known. YAML's own errors have a line only.
func (f Fault) Place() string {
	if f.File == "" || f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, max(f.Column, 1))
}

// Faults is every fault, as one error.
type Faults []Fault

// Error returns the faults one per line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// asError keeps an empty list from becoming a non-nil error.
func (fs Faults) asError() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// maxFaults bounds the report on a file that is not a policy file at all.
const maxFaults = 1000

// report collects the faults of one policy file.
type report struct {
	file   string
	faults Faults
}

// full reports that further faults are not shown, so costly advice can be skipped.
func (r *report) full() bool { return len(r.faults) >= maxFaults }

func (r *report) fault(n *yaml.Node, format string, args ...any) {
	if !r.full() {
		r.faults = append(r.faults, Fault{r.file, n.Line, n.Column, fmt.Sprintf(format, args...)})
	}
}

// inOrder sorts by place in the file, then by text, since maps are walked in random order.
func inOrder(faults []Fault) {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Text, b.Text))
	})
}

// sorted returns the faults in file order, with a note if some are left out.
func (r *report) sorted() Faults {
	inOrder(r.faults)
	if r.full() {
		return append(r.faults, Fault{File: r.file, Text: fmt.Sprintf("there are more than %d faults; the rest is not shown", maxFaults-1)})
	}
	return r.faults
}

// quote shows a value in a sentence: escaped, and truncated so that a pasted file does not fill the screen.
func quote(s string) string {
	if short := cut(s, 80); short != s {
		return fmt.Sprintf("%q…", strings.TrimSuffix(short, "…"))
	}
	return strconv.Quote(s)
}

// cut truncates s to most runes and marks the cut.
func cut(s string, most int) string {
	if r := []rune(s[:min(len(s), 4*most)]); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// nearest returns the known word closest to word, or "" if none is close.
func nearest(word string, known []string) string {
	best, least := "", 1+max(1, (len(word)+2)/3)
	if len(word) > 64 {
		return ""
	}
	for _, k := range known {
		if len(k)-len(word) >= least || len(word)-len(k) >= least {
			continue
		}
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(k), nil); d < least {
			best, least = k, d
		}
	}
	return best
}

// Suggestion completes a sentence about an unknown word with the known ones.
func Suggestion(word string, known []string) string {
	var longer []string
	for _, k := range known {
		if strings.HasPrefix(k, word+"_") {
			longer = append(longer, k)
		}
	}
	switch n := nearest(word, known); {
	case n != "":
		return "did you mean " + n + "?"
	case len(longer) > 0:
		return "did you mean " + either(longer) + "?"
	case len(known) > 25:
		return fmt.Sprintf("it resembles none of the %d known", len(known))
	}
	return "known are " + list(known)
}

// list joins words for a sentence, in order.
func list(words []string) string {
	return strings.Join(slices.Sorted(slices.Values(words)), ", ")
}

// either joins words for a sentence that offers a choice.
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
