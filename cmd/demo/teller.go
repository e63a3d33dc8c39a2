package main

import (
	"fmt"
	"io"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
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
func (t *teller) tell(e rotator.Event) {
	select {
	case t.lines <- line(e):
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
		if e.Reason == ledger.ReasonQuarantineEnded {
			return "deleted old key " + short(e.KeyID) + ", its quarantine is over"
		}
		return "disabled old key " + short(e.KeyID) + ", its overlap is over"
	case rotator.EventFailed, rotator.EventRetireError:
		return fmt.Sprintf("failed at %s: %s; it will be tried again", e.Stage, e.Reason)
	case rotator.EventKeyDisabled:
		return "key " + short(e.KeyID) + " was disabled by others: " + string(e.Reason)
	}
	return fmt.Sprintf("%s %s %s", e.Type, short(e.KeyID), e.Reason)
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }

// short is enough of an id to tell keys apart.
func short(id string) string { return id[:min(len(id), 8)] }
