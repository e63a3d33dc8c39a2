package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Entry is told of a write of a policy's ledger entry. One write may be several events.
func (c *Checker) Entry(policy, writer string, data map[string]any) (events []string, err error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("reading entry of %s: %w", policy, err)
	}
	after := &entry{}
	if err := json.Unmarshal(text, after); err != nil {
		return nil, fmt.Errorf("reading entry of %s: %w", policy, err)
	}
	before := c.entries[policy]
	if before == nil {
		before = &entry{Policy: policy}
	}
	if after.Claim != nil && c.writers[after.Claim.Holder] == "" {
		c.writers[after.Claim.Holder] = writer
	}
	var faults []error
	check := func(name string, facts *entry, k key) {
		events = append(events, name)
		var giver *entry
		for _, e := range c.entries {
			if e.MovedTo == policy || before.MovedTo != "" {
				giver = e
			}
		}
		faults = append(faults, c.may(name, c.facts(facts, giver, writer, k)))
	}
	switch {
	case after.MovedTo != "":
		check("give", before, key{})
	case after.Moves != before.Moves:
		check("take", before, key{})
	default:
		claims(before, after, check)
		done := rotations(before, after, check)
		keys(before, after, done, check)
	}
	c.entries[policy] = after
	return events, errors.Join(faults...)
}

type checks func(event string, facts *entry, k key)

func claims(before, after *entry, check checks) {
	switch b, a := before.Claim, after.Claim; {
	case b == nil && a != nil:
		check("claim", before, key{})
	case b != nil && a == nil:
		check("release", before, key{})
	case b != nil && b.Holder != a.Holder:
		check("takeover", before, key{})
	case b != nil && b.Nonce != a.Nonce:
		check("renew", before, key{})
	}
}

// rotations checks how an intent comes and goes. It returns the event that ended one.
func rotations(before, after *entry, check checks) string {
	if in := after.Intent; in != nil && (before.Intent == nil || before.Intent.Name != in.Name) {
		what := "intend"
		if in.Rollback {
			what = "putback"
		}
		check(what, before, key{Name: in.Name})
	}
	if before.Intent == nil || after.Intent != nil {
		return ""
	}
	k, what := key{Name: before.Intent.Name}, "withdraw"
	switch {
	case after.current(k) && after.Current.Hash != "":
		k, what = *after.Current, "commit"
	case before.Intent.Rollback:
		what = "giveup"
	case after.knows(k):
		what = "keep"
	case after.abandoned(k):
		what = "abandon"
	}
	check(what, before, k)
	return what
}

// keys checks how keys and the notes about them come and go.
func keys(before, after *entry, done string, check checks) {
	ended := done == "commit" || done == "keep"
	if b, a := before.Current, after.Current; !ended && (a == nil && b != nil || a != nil && !before.current(*a)) {
		switch {
		case a == nil:
			check("unseat", before, *b)
		case before.retiring(*a):
			check("follow", before, *a)
		default:
			check("adopt", before, *a)
		}
	}
	for _, k := range before.keys() {
		if !after.knows(k) {
			check("leave", before, k)
		}
	}
	for _, k := range after.Retiring {
		i := slices.IndexFunc(before.Retiring, func(b key) bool { return same(b, k) })
		switch {
		case i < 0 && !before.current(k) && !ended:
			check("adopt", before, k)
		case i >= 0 && before.Retiring[i].State == "overlap" && k.State == "quarantine":
			check("quarantine", before, k)
		}
	}
	known := before.keys()
	for _, k := range after.keys() {
		i := slices.IndexFunc(known, func(b key) bool { return same(b, k) })
		for _, call := range k.Calls {
			if call.ID != "" && (i < 0 || !slices.Contains(known[i].Calls, call)) {
				check(map[string]string{"disable": "noteDisable", "enable": "noteEnable", "delete": "noteDelete"}[call.Kind], after, k)
			}
		}
	}
	for _, a := range after.Abandoned {
		if !slices.Contains(before.Abandoned, a) && (a.ID != "" || done != "abandon") {
			check("disown", before, key{ID: a.ID, Name: a.Name})
		}
	}
	for _, a := range before.Abandoned {
		if !slices.Contains(after.Abandoned, a) {
			check("forget", before, key{ID: a.ID, Name: a.Name})
		}
	}
}
