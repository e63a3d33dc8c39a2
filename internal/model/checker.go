// Package model holds the rotation protocol, as it really runs, to the events of its model. events.pml says what each event
// needs; rekeyd.pml asserts that in every state that Spin reaches, and Checker asks it of every call of a simulation.
package model

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

//go:embed events.pml
var table string

var event = regexp.MustCompile(`(?m)^#define MAY_(\w+)\s+(.+)$`)

// Conditions returns the condition of each event, as events.pml has them.
func Conditions() map[string]string {
	all := map[string]string{}
	for _, m := range event.FindAllStringSubmatch(table, -1) {
		all[m[1]] = strings.TrimSpace(m[2])
	}
	return all
}

// holds says whether a condition is true of facts. A fact that there is not is an error.
func holds(x ast.Expr, facts map[string]bool) (bool, error) {
	switch x := x.(type) {
	case *ast.ParenExpr:
		return holds(x.X, facts)
	case *ast.UnaryExpr:
		v, err := holds(x.X, facts)
		return !v, err
	case *ast.BinaryExpr:
		a, errA := holds(x.X, facts)
		b, errB := holds(x.Y, facts)
		if errA != nil || errB != nil {
			return false, fmt.Errorf("%w, %w", errA, errB)
		}
		return x.Op == token.LAND && a && b || x.Op == token.LOR && (a || b), nil
	case *ast.Ident:
		v, found := facts[x.Name]
		if !found {
			return false, fmt.Errorf("there is no fact %s", x.Name)
		}
		return v, nil
	}
	return false, fmt.Errorf("a condition of %T", x)
}

type key struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Hash   string `json:"hash"`
	Calls  []struct{ Kind, ID string }
}

// entry is what the model knows of a ledger entry.
type entry struct {
	Policy string
	Claim  *struct {
		Holder string
		Nonce  int
	}
	Intent *struct {
		Name     string `json:"key_name"`
		Rollback bool
	}
	Current   *key
	Retiring  []key
	Abandoned []struct {
		Name string `json:"key_name"`
		ID   string `json:"key_id"`
	}
	MovedTo string `json:"moved_to"`
	Moves   int
}

func (e *entry) keys() []key {
	all := slices.Clone(e.Retiring)
	if e.Current != nil {
		all = append(all, *e.Current)
	}
	return all
}

func (e *entry) current(k key) bool { return e.Current != nil && same(*e.Current, k) }
func (e *entry) retiring(k key) bool {
	return slices.ContainsFunc(e.Retiring, func(r key) bool { return same(r, k) })
}
func (e *entry) knows(k key) bool    { return e.current(k) || e.retiring(k) }
func (e *entry) intended(k key) bool { return e.Intent != nil && e.Intent.Name == k.Name }

func (e *entry) abandoned(k key) bool {
	for _, a := range e.Abandoned {
		if a.ID == k.ID && a.ID != "" || a.ID == "" && a.Name == k.Name {
			return true
		}
	}
	return false
}

// same compares by id, or by name where only that is known.
func same(a, b key) bool {
	if a.ID == "" || b.ID == "" {
		return a.Name == b.Name
	}
	return a.ID == b.ID
}

// Key is a key as ElevenLabs has it.
type Key struct {
	ID, Name          string
	Disabled, Deleted bool
}

// Checker follows the policies of one installation, call by call, and refuses what the model does not allow. Its methods
// return the events that a call is.
type Checker struct {
	conditions map[string]ast.Expr
	entries    map[string]*entry
	keys       map[string]Key
	published  map[string]bool   // by id: a record held it
	reserved   map[string]string // by id: the policy that may adopt it
	writers    map[string]string // by holder
}

// New returns a Checker of an empty world.
func New() (*Checker, error) {
	c := &Checker{map[string]ast.Expr{}, map[string]*entry{}, map[string]Key{}, map[string]bool{}, map[string]string{}, map[string]string{}}
	for name, text := range Conditions() {
		x, err := parser.ParseExpr(text)
		if err != nil {
			return nil, fmt.Errorf("reading the condition of %s: %w", name, err)
		}
		c.conditions[name] = x
	}
	return c, nil
}

// See notes a key that is there, whoever made or changed it.
func (c *Checker) See(k Key) { c.keys[k.ID] = k }

// Reserve notes the ledger's document about a key that others made.
func (c *Checker) Reserve(id, policy string) { c.reserved[id] = policy }

// Published notes that a record holds the key, whoever wrote it.
func (c *Checker) Published(id string) { c.published[id] = true }

func (c *Checker) any(k key, is func(Key) bool) bool {
	for _, known := range c.keys {
		if same(key{ID: known.ID, Name: known.Name}, k) && is(known) {
			return true
		}
	}
	return false
}

func (c *Checker) facts(e, other *entry, writer string, k key) map[string]bool {
	now := key{}
	for _, known := range e.keys() {
		if same(known, k) {
			now = known
		}
	}
	noted := func(kind string) bool {
		return slices.ContainsFunc(now.Calls, func(call struct{ Kind, ID string }) bool { return call.Kind == kind })
	}
	exists := c.any(k, func(Key) bool { return true })
	made := c.any(k, func(k Key) bool { return !k.Deleted })
	return map[string]bool{
		"CLAIMED": e.Claim != nil, "MINE": e.Claim != nil && c.writers[e.Claim.Holder] == writer,
		"BEGUN": e.Intent != nil, "INTENDED": e.intended(k), "MOVED": e.MovedTo != "", "GIVEN": other != nil,
		"CURRENT": e.current(k), "FORMER": e.retiring(k), "ABANDONED": e.abandoned(k), "REVOKED": now.Reason == "revoke_now",
		"TODISABLE": noted("disable"), "TOENABLE": noted("enable"), "TODELETE": noted("delete"),
		"MADE": made, "GONE": exists && !made, "UNUSED": !exists && !e.abandoned(k) && !e.knows(k),
		"PUBLISHED": c.any(k, func(k Key) bool { return c.published[k.ID] }), "RESERVED": c.owner(k) == e.Policy,
	}
}

// owner is the policy that may adopt a key.
func (c *Checker) owner(k key) string {
	if part := strings.Split(c.keys[k.ID].Name, "."); len(part) == 4 && part[0] == "rekeyd" {
		return part[2]
	}
	name := c.reserved[k.ID]
	for range c.entries {
		if e := c.entries[name]; e != nil && e.MovedTo != "" {
			name = e.MovedTo
		}
	}
	return name
}

func (c *Checker) may(name string, facts map[string]bool) error {
	x := c.conditions[name]
	ok, err := holds(x, facts)
	if err == nil && !ok {
		var is []string
		for _, f := range slices.Sorted(maps.Keys(facts)) {
			if facts[f] {
				is = append(is, f)
			}
		}
		err = fmt.Errorf("%s needs %s, here is %s", name, Conditions()[name], strings.Join(is, " "))
	}
	return err
}

// about returns the entry, and its policy, that knows most of a key; one that moved to another name comes last.
func (c *Checker) about(k key) *entry {
	found, best := &entry{}, 0
	for _, name := range slices.Sorted(maps.Keys(c.entries)) {
		e, rank := c.entries[name], 0
		switch {
		case e.current(k):
			rank = 5
		case e.retiring(k), e.intended(k):
			rank = 4
		case e.abandoned(k):
			rank = 3
		}
		if e.MovedTo != "" && rank > 0 {
			rank -= 3
			rank = max(rank, 1)
		}
		if rank > best {
			found, best = e, rank
		}
	}
	return found
}

// Call is told of a call that changed a key: create, enable, disable or delete.
func (c *Checker) Call(what string, k Key) error {
	c.See(k)
	of := key{ID: k.ID, Name: k.Name}
	return c.may(what, c.facts(c.about(of), nil, "", of))
}

// Record is told of a write of a record by a replica: what it held, and what it holds.
func (c *Checker) Record(before, after map[string]any) (string, error) {
	id, _ := after["key_id"].(string)
	if before["key_id"] == after["key_id"] {
		data := maps.Clone(after)
		if before == nil {
			delete(data, "policy")
		}
		return "fence", c.may("fence", map[string]bool{"SAME": len(data) == 0 || reflect.DeepEqual(before, after)})
	}
	c.Published(id)
	of := key{ID: id, Name: c.keys[id].Name}
	return "publish", c.may("publish", c.facts(c.about(of), nil, "", of))
}
