package config

import (
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// maxFaults bounds what is said about a file that is no policy file at all.
const maxFaults = 1000

// report gathers what is wrong with one policy file.
type report struct {
	file   string
	faults Faults
}

// full says that further faults would not be shown; costly advice need not be worked out.
func (r *report) full() bool { return len(r.faults) >= maxFaults }

func (r *report) fault(n *yaml.Node, format string, args ...any) {
	if !r.full() {
		r.faults = append(r.faults, Fault{r.file, n.Line, n.Column, fmt.Sprintf(format, args...)})
	}
}

// inOrder sorts by place in the file. Maps are walked on the way, so that the text decides too.
func inOrder(faults []Fault) {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Text, b.Text))
	})
}

// sorted returns the faults in the order of the file, and says so if there were too many.
func (r *report) sorted() Faults {
	inOrder(r.faults)
	if r.full() {
		return append(r.faults, Fault{File: r.file, Text: fmt.Sprintf("there are more than %d faults; the others are not shown", maxFaults-1)})
	}
	return r.faults
}
