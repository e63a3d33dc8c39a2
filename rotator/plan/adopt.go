package plan

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// planAdopt adopts a key if the record holds its secret and no other policy owns it.
func planAdopt(p Policy, o Observed, id string, why ledger.Trigger, d Decision) Decision {
	k, _ := o.Key(id)
	_, _, rotation, _ := ledger.ParseKeyName(k.Name)
	switch {
	case ledger.LooksSecret(id):
		return d.fail(FaultAdoptUnknown, "adopt of policy %s looks like a secret, not like the id of a key; write the id, one of: %s", p.Name, candidates(p, o))
	case o.otherOwner(p, id) != "":
		return failOthersKey(p, o, id, why, d)
	case !o.inAccount(p, id):
		return d.fail(FaultAdoptUnknown, "service account %s has no key %s to adopt; its keys are: %s", p.ServiceAccount, id, candidates(p, o))
	case o.Entry != nil && o.Entry.IsAbandoned(id, rotation):
		return d.fail(FaultAdoptRefused, "key %s was given up and is being deleted; it cannot be adopted", id)
	case o.Entry != nil && o.Entry.Key(id).Deleting():
		return d.fail(FaultRecordChanged, "key %s cannot be adopted: a delete of it is not answered yet", id)
	case !o.Record.HasValue:
		return d.fail(FaultAdoptRefused, "%s does not hold the secret of key %s, so policy %s cannot adopt it; put the secret there, or remove adopt for a new key", p.Sink, id, p.Name)
	case o.Record.Fit(k.Hint) == HintDiffers:
		return d.fail(FaultAdoptRefused, "the value in %s does not end as the hint of key %s (%s) says, so policy %s cannot adopt it; put that key's secret there, or name another key: %s",
			p.Sink, id, k.Hint, p.Name, candidates(p, o))
	}
	d.add(Step{ActAdopt, why, id, p.Workspace, p.ServiceAccount})
	return d
}

// failOthersKey leaves a key with the other policy that owns it.
func failOthersKey(p Policy, o Observed, id string, why ledger.Trigger, d Decision) Decision {
	other := o.otherOwner(p, id)
	if why == ledger.TriggerAdoptNamed {
		return d.fail(FaultAdoptRefused, "key %s belongs to policy %s and stays with it; remove adopt of policy %s, or name another key: %s", id, other, p.Name, candidates(p, o))
	}
	return d.fail(FaultRecordChanged, "%s holds a copy of key %s, which belongs to policy %s and is retired when that policy rotates; remove the copy and policy %s gets a key of its own",
		p.Sink, id, other, p.Name)
}

func failForeignFields(p Policy, o Observed, d Decision) Decision {
	return d.fail(FaultRecordChanged, "%s has no %s, and fields with the names that rekeyd writes (%s), which rekeyd did not put there; choose another place for policy %s, or rename those fields",
		p.Sink.Ref, p.Sink.Field, o.Record.foreignFields(p), p.Name)
}

// otherOwner returns the policy that owns the key, by the ledger or by the key's name, if it is not this one.
func (o Observed) otherOwner(p Policy, id string) string {
	if e := o.Entry; e != nil && (ledger.CurrentID(e) == id || e.RetiringKey(id) != nil) {
		return ""
	}
	if other := o.Elsewhere[id]; other != "" {
		return other
	}
	k, _ := o.Key(id)
	if owner, policy, _, ok := ledger.ParseKeyName(k.Name); ok && owner == o.Owner && policy != p.Name {
		return policy
	}
	return ""
}

func (o Observed) inAccount(p Policy, id string) bool {
	k, ok := o.Key(id)
	return ok && k.Workspace == p.Workspace && k.ServiceAccount == p.ServiceAccount
}

// everOwned reports whether the policy ever owned this key. adopt applies only to unknown keys, or a stale setting would undo
// rotations. A ledger without a current key has lost what the policy owned.
func (o Observed) everOwned(id string) bool {
	if o.Entry == nil {
		return false
	}
	k, _ := o.Key(id)
	owner, policy, rotation, ok := ledger.ParseKeyName(k.Name)
	return o.Entry.Knows(id, rotation) || (ok && o.Entry.Current != nil && owner == o.Entry.Owner && policy == o.Entry.Policy)
}

const noCandidate = "none"

// candidates lists the account's keys that the policy could adopt, for a person to choose from.
func candidates(p Policy, o Observed) string {
	const most = 10
	var s []string
	more := 0
	for _, k := range o.Keys {
		if k.Workspace != p.Workspace || k.ServiceAccount != p.ServiceAccount || o.otherOwner(p, k.ID) != "" {
			continue
		}
		if more++; len(s) < most {
			note := ""
			if o.Record.Fit(k.Hint) == HintFits {
				note = " fits"
			}
			s = append(s, fmt.Sprintf("%s (%s, hint %s%s, created %s)", k.ID, k.Name, k.Hint, note, k.CreatedAt.UTC().Format(time.DateOnly)))
		}
	}
	if len(s) == 0 {
		return noCandidate
	}
	if more -= len(s); more > 0 {
		s = append(s, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(s, ", ")
}

// Fit is whether a record's value fits a key's hint.
type Fit int

// The results of comparing a value with a hint.
const (
	Unsaid      Fit = iota // the hint shows no character of the secret's end, or there is no value
	HintFits               // the value ends as the key's secret does
	HintDiffers            // the value is another key's secret
)

// Fit compares the end of the record's secret with a hint.
func (v RecordView) Fit(hint string) Fit {
	end := hintEnd(hint)
	switch {
	case end == "" || !v.HasValue:
		return Unsaid
	case v.Ending != "" && (strings.HasSuffix(v.Ending, end) || strings.HasSuffix(end, v.Ending)):
		return HintFits
	}
	return HintDiffers
}

// hintEnd returns the characters at the secret's end that a hint such as "...09c5" shows.
func hintEnd(hint string) string {
	masked := func(c rune) bool { return c != '_' && c != '-' && !unicode.IsLetter(c) && !unicode.IsDigit(c) }
	i := strings.LastIndexFunc(hint, masked)
	if i < 0 {
		return hint
	}
	_, size := utf8.DecodeRuneInString(hint[i:])
	return hint[i+size:]
}

// Ending returns the end of a value, to compare it with hints. It is too short to help guess a key.
func Ending(value string) string {
	const shown, shortest = 8, 24
	if len(value) < shortest {
		return ""
	}
	return strings.Clone(value[len(value)-shown:]) // which does not keep the rest in memory
}

// foreignFields returns the fields, not written by rekeyd, that publishing would overwrite. A record with only the policy's name
// is what a takeover leaves.
func (v RecordView) foreignFields(p Policy) string {
	if v.Policy == p.Name && v.Foreign == ledger.FieldPolicy {
		return ""
	}
	return v.Foreign
}
