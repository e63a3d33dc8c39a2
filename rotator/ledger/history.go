package ledger

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Past is what became of one rotation that published a key.
type Past struct {
	Rotation      string        `json:"rotation"` // "" for an adopted key
	By            By            `json:"by"`
	Reason        Trigger       `json:"reason"`
	Words         string        `json:"words,omitempty"` // of the person who asked
	KeyID         string        `json:"key_id"`
	PreviousKeyID string        `json:"previous_key_id,omitempty"`
	Started       time.Time     `json:"started,omitzero"`
	Created       time.Time     `json:"created,omitzero"`
	Published     time.Time     `json:"published,omitzero"`
	Disabled      time.Time     `json:"disabled,omitzero"` // the previous key
	Deleted       time.Time     `json:"deleted,omitzero"`  // the previous key
	Probes        []ProbeAnswer `json:"probes,omitempty"`
	Proof         Proof         `json:"proof,omitempty"` // of the previous key's end
	ProofAt       time.Time     `json:"proof_at,omitzero"`
}

// ProbeAnswer is what ElevenLabs answered to a probe with the new key.
type ProbeAnswer struct {
	Path   string `json:"path"`
	Status int    `json:"status"`
}

// Same reports whether both are the same rotation, whatever became of it since.
func (p Past) Same(other Past) bool {
	return p.Rotation == other.Rotation && p.KeyID == other.KeyID && p.Published.Equal(other.Published)
}

// Probed reports whether there were probes and each was answered 2xx.
func (p Past) Probed() bool {
	return len(p.Probes) > 0 && !slices.ContainsFunc(p.Probes, func(a ProbeAnswer) bool { return !a.Good() })
}

// Good reports whether the answer was 2xx.
func (a ProbeAnswer) Good() bool { return a.Status >= 200 && a.Status <= 299 }

// By is who or what asked for a rotation.
type By string

// Who or what asks for rotations.
const (
	BySchedule  By = "schedule" // max_age and a first key too
	ByCommand   By = "command"
	ByHTTP      By = "http"
	ByLeak      By = "leak"
	ByDrift     By = "drift"
	ByMoved     By = "moved"
	ByMissing   By = "missing" // the key or its record
	ByAdopt     By = "adopt"
	ByRecovered By = "recovered" // an earlier version began it, and did not note who asked
)

// Proof is what was found out about a disabled key.
type Proof string

// The results of trying a disabled key's secret once more.
const (
	Rejected      Proof = "rejected"
	StillAccepted Proof = "still_accepted"
	NotTried      Proof = "not_tried" // no version of the record has its secret, or ElevenLabs gave no clear answer
)

// Open reports whether the key is to be tried once more.
func (p Proof) Open() bool { return p == "" || p == StillAccepted }

// The bounds of a history.
const (
	maxPast      = 20
	maxPastBytes = 16 << 10
	maxWords     = 200
)

// Remember adds a rotation to the history, and forgets the oldest ones beyond its bounds.
func (e *Entry) Remember(p Past) {
	p.Words = Words(p.Words)
	p.Started, p.Created, p.Published = p.Started.Truncate(time.Second), p.Created.Truncate(time.Second), p.Published.Truncate(time.Second)
	e.History = append(slices.Clip(e.History), p)
	for len(e.History) > maxPast || atMost(e.History) > maxPastBytes {
		e.History = e.History[1:]
	}
}

// atMost is no less than the length of a history as JSON, and mostly little more. To encode a full one takes as long as a request.
func atMost(history []Past) int {
	const names, probe, escape = 400, 30, len(`\u0000`) - 1 // names with the longest times, and what surrounds them
	n := 0
	for _, p := range history {
		texts := []string{p.Rotation, string(p.By), string(p.Reason), p.Words, p.KeyID, p.PreviousKeyID, string(p.Proof)}
		for _, a := range p.Probes {
			texts = append(texts, a.Path)
		}
		n += names + probe*len(p.Probes)
		for _, text := range texts {
			n += len(text)
			for _, c := range text {
				switch {
				case c < ' ', c == '"', c == '\\', c == '<', c == '>', c == '&', c == '\u2028', c == '\u2029', c == utf8.RuneError:
					n += escape
				}
			}
		}
	}
	return n
}

// PastOf returns the latest rotation that replaced the key, to note what became of that key; nil: it is forgotten.
func (e *Entry) PastOf(replaced string) *Past {
	history := e.Rotations()
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].PreviousKeyID == replaced {
			return &history[i]
		}
	}
	return nil
}

// Words returns a person's words as they may be logged and kept: bounded, and without what looks like a secret.
func Words(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if LooksSecret(w) {
			words[i] = "[redacted]"
		}
	}
	return shortenTo(strings.Join(words, " "), maxWords)
}
