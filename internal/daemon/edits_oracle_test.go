package daemon

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// editOracle knows when each policy was what, and holds every rotation against it.
type editOracle struct {
	t  *testing.T
	mu sync.Mutex // its callers hold locks of their own: nothing is called back

	lineages  map[string]*lineage  // by each name that it ever had
	promised  map[string]time.Time // by key id, until when readers were told that it works
	rotations int
	disturbed int
	trace     []string
}

// lineage is a policy through all of its edits, renames included.
type lineage struct {
	versions []version
	last     time.Time // of the last rotation; zero: no key yet
	place    string    // of the current key
	overlaps time.Time // when the last of its overlaps ends
	created  int
	rotated  int
	claimed  time.Time // when the key in flight was created
	edited   bool      // … and an edit has happened since
}

// version is what a policy was from one reload to the next.
type version struct {
	wanted
	schedule schedule.Schedule
	since    time.Time
	loaded   bool
}

func (v version) due(last time.Time) time.Time {
	return v.schedule.Next(last).Add(schedule.SplayOf(v.name, v.splay))
}

func newEditOracle(t *testing.T) *editOracle {
	return &editOracle{t: t, lineages: map[string]*lineage{}, promised: map[string]time.Time{}}
}

func (o *editOracle) tracef(format string, args ...any) {
	o.trace = append(o.trace, time.Now().Format("02 15:04:05 ")+fmt.Sprintf(format, args...))
}

func (o *editOracle) violated(format string, args ...any) {
	o.tracef("VIOLATION "+format, args...)
	o.t.Errorf(format, args...)
}

// edited is told which policies are in force from now on, right before they are loaded.
func (o *editOracle) edited(what string, file []wanted) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tracef("edit: %s", what)
	for _, l := range o.lineages {
		l.edited = true
	}
	now := time.Now()
	there := map[*lineage]bool{}
	for _, p := range file {
		if p.was != "" {
			o.lineages[p.name] = o.lineages[p.was]
		}
		l := o.lineages[p.name]
		if l == nil {
			l = &lineage{}
			o.lineages[p.name] = l
		}
		there[l] = true
		p.was = ""
		if n := len(l.versions); n > 0 && l.versions[n-1].wanted == p && l.versions[n-1].loaded {
			continue
		}
		s, err := schedule.Parse(p.schedule, "UTC")
		if err != nil {
			o.t.Fatal(err)
		}
		l.versions = append(l.versions, version{p, s, now, true})
	}
	for _, l := range o.lineages {
		if v := l.now(); !there[l] && v.loaded {
			v.loaded, v.since = false, now
			l.versions = append(l.versions, v)
		}
	}
}

func (l *lineage) now() version { return l.versions[len(l.versions)-1] }

// settled reports that the policy of this name has a key and nothing in flight.
func (o *editOracle) settled(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lineages[name]
	return !l.last.IsZero()
}

// changed is told of every change of a key.
func (o *editOracle) changed(c elevensim.Change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch until, ok := o.promised[c.Key.ID]; {
	case c.Kind == elevensim.Created:
		l := o.lineages[strings.Split(c.Key.Name, ".")[2]]
		l.created++
		l.claimed, l.edited = time.Now(), false
		o.tracef("key %s created (%s)", c.Key.ID[:6], c.Key.Name)
		if l.created > l.rotated+1 {
			o.violated("key %s was created while the one before is not published", c.Key.Name)
		}
	case c.Kind == elevensim.Disabled && (!ok || time.Now().Before(until)):
		o.violated("key %s was disabled, its readers were told that it works until %s", c.Key.Name, until)
	}
}

// happened is told what the daemon does.
func (o *editOracle) happened(e rotator.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e.Type {
	case rotator.EventFailed, rotator.EventError, rotator.EventRetireError:
		o.violated("%s: %s %s %s", e.Policy, e.Type, e.Stage, e.Reason)
	case rotator.EventRotated:
		o.rotated(e)
	}
}

func (o *editOracle) rotated(e rotator.Event) {
	l := o.lineages[e.Policy]
	o.tracef("%s rotated (%s), last %s, due %s", e.Policy, e.Reason, l.last.Format("02 15:04:05"), l.now().due(l.last).Format("02 15:04:05"))
	o.rotations++
	l.rotated++
	if l.edited {
		o.disturbed++
	}
	v, ok := l.justifies(e)
	if !ok {
		o.violated("%s was rotated (%s) although nothing called for it", e.Policy, e.Reason)
	}
	if e.PreviousKeyID != "" {
		o.promised[e.PreviousKeyID] = e.PreviousValidUntil
		if e.PreviousValidUntil.After(l.overlaps) {
			l.overlaps = e.PreviousValidUntil
		}
	}
	l.last, l.place = e.At, v.place()
}

// justifies returns the version of the policy that called for a rotation, as it was when the key was created: what was
// edited since does not count.
func (l *lineage) justifies(e rotator.Event) (version, bool) {
	v := l.versions[0]
	for _, next := range l.versions {
		if next.since.After(l.claimed) {
			break
		}
		v = next
	}
	switch {
	case !v.loaded:
		return v, false
	case l.last.IsZero():
		return v, e.Reason == ledger.TriggerFirst
	case v.place() != l.place:
		return v, e.Reason == ledger.TriggerMoved
	}
	now := l.claimed.Add(time.Second) // what is written down is cut to whole seconds
	return v, e.Reason == ledger.TriggerSchedule && !v.due(l.last).After(now) && !l.overlaps.After(now)
}

// check finds rotations that are overdue.
func (o *editOracle) check(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, l := range o.lineages {
		v := l.now()
		if !v.loaded || v.name != name {
			continue
		}
		due := v.since
		if !l.last.IsZero() && v.place() == l.place {
			for _, t := range []time.Time{v.due(l.last), l.overlaps} {
				if t.After(due) {
					due = t
				}
			}
		}
		if late := now.Sub(due); late > howLateAtMost {
			o.violated("%s is late by %s, its last rotation was at %s", name, late, l.last)
			l.versions[len(l.versions)-1].since = now
		}
	}
}

// conclude checks that every key that was made has its place.
func (o *editOracle) conclude() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, l := range o.lineages {
		if l.created != l.rotated && time.Since(l.claimed) > time.Minute {
			o.violated("%s: %d keys were created and %d published", name, l.created, l.rotated)
		}
	}
}
