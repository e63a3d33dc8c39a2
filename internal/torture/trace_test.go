package torture

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// trace tells the story of a key: what was asked of ElevenLabs about it, what the processes said of it, and what was
// done to them meanwhile.
func (w *world) trace(l *life) string {
	rotation := l.Name[strings.LastIndex(l.Name, ".")+1:]
	concerns := func(text string) bool { return strings.Contains(text, l.ID) || strings.Contains(text, rotation) }
	events := []event{{l.CreatedAt, "simulator: created"}}
	for name, at := range map[string]time.Time{"published": l.published, "replaced": l.replaced, "works, as its readers were told, until now": l.promised} {
		if !at.IsZero() {
			events = append(events, event{at, "Vault: " + name})
		}
	}
	for _, r := range w.requests {
		if text := fmt.Sprintf("simulator: %s %s %s: %d, applied %v, %s", r.Operation, r.KeyID, r.Body, r.Status, r.Applied, r.Fault); concerns(text) {
			events = append(events, event{r.Time, text})
		}
	}
	for i, o := range w.said {
		for line := range strings.Lines(o.String()) {
			var head struct{ Time time.Time }
			if concerns(line) && json.Unmarshal([]byte(line), &head) == nil {
				events = append(events, event{head.Time, fmt.Sprintf("process %d: %s", i/2, strings.TrimSpace(line))})
			}
		}
	}
	return story(events, w.notes)
}

// story puts events in order, with the notes of that time.
func story(events, notes []event) string {
	byTime := func(a, b event) int { return a.at.Compare(b.at) }
	slices.SortFunc(events, byTime)
	from, to := events[0].at.Add(-time.Second), events[len(events)-1].at.Add(time.Second)
	for _, n := range notes {
		if n.at.After(from) && n.at.Before(to) {
			events = append(events, n)
		}
	}
	slices.SortStableFunc(events, byTime)
	var text strings.Builder
	for _, e := range events {
		fmt.Fprintf(&text, "  %s %s\n", e.at.UTC().Format("15:04:05.000"), e.what)
	}
	return text.String()
}
