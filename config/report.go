package config

import (
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

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
