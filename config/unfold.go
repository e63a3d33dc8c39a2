package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxUnfolded bounds the nodes that aliases stand for, and so what a small file can unfold to.
const maxUnfolded = 200_000

// unfolder replaces aliases by the nodes that they name, and carries out merge keys. Nodes are shared, not copied: what is
// wrong with a value is reported where it is written, and what is wrong with a whole mapping or list where its alias is.
type unfolder struct {
	*report
	anchors map[*yaml.Node]unfolded // whose end was seen: an alias that finds none stands inside its own anchor
	aliased int                     // nodes that aliases stand for, so far
}

// unfolded is a node without aliases, and how many nodes it has.
type unfolded struct {
	node *yaml.Node
	size int
}

// unfold returns root without aliases and merge keys. Before they can grow beyond bounds, it stops with a fault.
func unfold(r *report, root *yaml.Node) (*yaml.Node, bool) {
	u := &unfolder{r, map[*yaml.Node]unfolded{}, 0}
	out, ok := u.node(root)
	return out.node, ok
}

// node follows the order of the file, in which an anchor comes before its aliases, so their chains need no recursion.
func (u *unfolder) node(n *yaml.Node) (unfolded, bool) {
	if n.Kind == yaml.AliasNode {
		return u.alias(n)
	}
	out := unfolded{n, 1}
	var content []*yaml.Node // a copy, once something differs
	merges := false
	for i, c := range n.Content {
		inner, ok := u.node(c)
		if !ok {
			return out, false
		}
		out.size += inner.size
		if inner.node != c && content == nil {
			content = append(make([]*yaml.Node, 0, len(n.Content)), n.Content[:i]...)
		}
		if content != nil {
			content = append(content, inner.node)
		}
		merges = merges || n.Kind == yaml.MappingNode && i%2 == 0 && mergeKey(inner.node)
	}
	if content != nil || merges {
		changed := *n
		if content != nil {
			changed.Content = content
		}
		if merges {
			changed.Content = u.merge(changed.Content)
		}
		out.node = &changed
	}
	if n.Anchor != "" {
		u.anchors[n] = out
	}
	return out, true
}

func (u *unfolder) alias(n *yaml.Node) (unfolded, bool) {
	out, complete := u.anchors[n.Alias]
	u.aliased += out.size
	switch {
	case !complete:
		u.fault(n, "the alias *%s stands inside its own anchor, so it would unfold without end; write the value out", cut(n.Value, 64))
	case u.aliased > maxUnfolded:
		u.fault(n, "aliases up to *%s unfold to more than %d nodes; use defaults or profiles, or split the policy file", cut(n.Value, 64), maxUnfolded)
	default:
		if len(out.node.Content) > 0 {
			here := *out.node
			here.Line, here.Column = n.Line, n.Column
			out.node = &here
		}
		return out, true
	}
	return out, false
}

// mergeKey reports whether a key is <<, which quotes or a tag turn into a name like any other.
func mergeKey(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "<<" && n.Style == 0
}

// merge returns the content of a mapping with what its << names. Its own keys win, then those of the first in a list.
func (u *unfolder) merge(content []*yaml.Node) []*yaml.Node {
	var own, merged []*yaml.Node
	var first *yaml.Node
	for i := 0; i < len(content); i += 2 {
		switch key := content[i]; {
		case !mergeKey(key):
			own = append(own, key, content[i+1])
		case first != nil:
			u.fault(key, "<< is given twice, first on line %d; write it once, with a list such as <<: [*a, *b]", first.Line)
		default:
			first = key
			merged = u.sources(content[i+1])
		}
	}
	given := make(map[string]bool, len(content))
	for i := 0; i < len(own); i += 2 {
		given[own[i].Value] = true
	}
	for i := 0; i < len(merged); i += 2 {
		if name := merged[i].Value; !given[name] || merged[i].Kind != yaml.ScalarNode {
			given[name] = true
			own = append(own, merged[i], merged[i+1])
		}
	}
	return own
}

// sources returns the keys and values of the mapping, or of each in the list, that << has.
func (u *unfolder) sources(n *yaml.Node) []*yaml.Node {
	from := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		from = n.Content
	}
	var all []*yaml.Node
	for _, m := range from {
		switch {
		case m.Style&yaml.TaggedStyle != 0:
			u.fault(m, "<< has the tag %s, which the policy file does not have; remove it", m.Tag)
		case m.Kind != yaml.MappingNode:
			u.fault(m, "<< is %s, not a mapping or a list of mappings; write an alias of one, such as <<: *base", describe(m, true))
		default:
			all = append(all, m.Content...)
		}
	}
	return all
}

var (
	anyAnchor = regexp.MustCompile(`(?m)(?:^|[ \t\[{,:])&([A-Za-z0-9_-]+)`)
	anyAlias  = regexp.MustCompile(`(?m)(?:^|[ \t\[{,:])\*([A-Za-z0-9_-]+)`)
)

// unknownAlias turns the parser's error about an alias into a fault at its first use, which the parser does not name.
func unknownAlias(file, text, name string) *Fault {
	f := &Fault{File: file, Line: 1}
	for n, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line, _, _ = strings.Cut(line, " #")
		for _, at := range anyAlias.FindAllStringSubmatchIndex(line, -1) {
			if line[at[2]:at[3]] == name && f.Column == 0 {
				f.Line, f.Column = n+1, at[2]
			}
		}
	}
	var known []string
	for _, anchor := range anyAnchor.FindAllStringSubmatch(text, -1) {
		known = append(known, anchor[1])
	}
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	advice := "write &" + cut(name, 64) + " before the value that it stands for, or put the text in quotes"
	if !slices.Contains(known, name) && len(known) > 0 {
		advice = Suggestion(name, known)
	}
	f.Text = fmt.Sprintf("the alias *%s has no anchor before it; %s", cut(name, 64), advice)
	return f
}
