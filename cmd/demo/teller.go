package main

import (
	"fmt"
	"io"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// teller writes one line for each thing that happens.
type teller struct {
	lines   chan string
	written chan struct{} // closed after the last line
}

func newTeller(out io.Writer) *teller {
	t := &teller{make(chan string, 256), make(chan struct{})}
	go func() {
		defer close(t.written)
		for line := range t.lines {
			_, _ = fmt.Fprintln(out, line) // the screen is gone
		}
	}()
	return t
}

// tell does not block: a terminal that is held up must not hold rotations up.
func (t *teller) tell(e rotator.Event) { t.say(line(e)) }

// say writes a line of its own; it does not block either.
func (t *teller) say(line string) {
	select {
	case t.lines <- line:
	default:
	}
}

// flush waits until everything is written that was told. Nothing may be told any more.
func (t *teller) flush() {
	close(t.lines)
	<-t.written
}

func line(e rotator.Event) string {
	return fmt.Sprintf("%s  %-12s %s", clock(e.At), e.Policy, words(e))
}

func words(e rotator.Event) string {
	switch e.Type {
	case rotator.EventRotated:
		if e.PreviousKeyID == "" {
			return "created the first key " + short(e.KeyID) + ", proved and published it"
		}
		return fmt.Sprintf("rotated: new key %s is published, old key %s works until %s", short(e.KeyID), short(e.PreviousKeyID), clock(e.PreviousValidUntil))
	case rotator.EventRetired:
		if e.Reason == ledger.TriggerQuarantineEnded {
			return "deleted old key " + short(e.KeyID) + ", its quarantine is over"
		}
		if e.Reason == ledger.TriggerRevoke {
			return "disabled old key " + short(e.KeyID) + " at once"
		}
		return "disabled old key " + short(e.KeyID) + ", its overlap is over"
	case rotator.EventLostDeleted:
		return "deleted the new key of a rotation that failed"
	case rotator.EventFailed:
		if e.Reason == ledger.FailureProbeFailed {
			return "failed: the new key was refused what the policy probes; it is deleted, and the old one stays"
		}
		return fmt.Sprintf("failed at %s: %s; it will be tried again", e.Stage, e.Reason)
	case rotator.EventRetireError:
		return fmt.Sprintf("failed at %s: %s; it will be tried again", e.Stage, e.Reason)
	case rotator.EventKeyDisabled:
		return "key " + short(e.KeyID) + " was disabled by others: " + plan.Word(e.Reason)
	}
	return fmt.Sprintf("%s %s %s", e.Type, short(e.KeyID), plan.Word(e.Reason))
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }

// short is enough of an id to tell keys apart.
func short(id string) string { return id[:min(len(id), 8)] }
