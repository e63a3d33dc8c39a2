package ledger

import (
	"encoding/binary"
	"time"
	"unique"
)

// Packed is a history in a few bytes, for entries that wait in memory: full ones of 10,000 policies take 20 MiB, and as slices
// 115 MiB. It is never stored.
type Packed string

// Pack returns a history in packed form.
func Pack(history []Past) Packed {
	if len(history) == 0 {
		return ""
	}
	c, n := codec{bytes: make([]byte, 0, 128*len(history))}, int64(len(history))
	c.number(&n)
	for i := range history {
		c.past(&history[i])
	}
	return Packed(c.bytes)
}

// Unpack returns the history, whose texts are parts of p.
func (p Packed) Unpack() []Past {
	if p == "" {
		return nil
	}
	c, n := codec{packed: string(p), reads: true}, int64(0)
	c.number(&n)
	history := make([]Past, n)
	for i := range history {
		c.past(&history[i])
	}
	return history
}

// Pack makes an entry small that waits in memory and is not going to change: its clones are unpacked. It is not encoded until then.
func (e *Entry) Pack() {
	e.Owner = unique.Make(e.Owner).Value() // which most entries have, as the digest
	if e.Applied != nil {
		e.Applied.Digest = unique.Make(e.Applied.Digest).Value()
	}
	if len(e.History) > 0 {
		e.packed, e.History = Pack(e.History), nil
	}
}

// Rotations returns the history, oldest first, of a packed entry too.
func (e *Entry) Rotations() []Past {
	if e.packed != "" {
		return e.packed.Unpack()
	}
	return e.History
}

// Packed returns the history in packed form.
func (e *Entry) Packed() Packed {
	if e.packed != "" {
		return e.packed
	}
	return Pack(e.History)
}

// codec writes rotations, or reads them back, by the same walk over their fields.
type codec struct {
	bytes  []byte // written so far
	packed string // to be read
	reads  bool
	key    string // the last new key, which mostly is the next rotation's previous one
	at     int64  // the last time
}

func (c *codec) past(p *Past) {
	c.text(&p.Rotation)
	c.text((*string)(&p.By))
	c.text((*string)(&p.Reason))
	c.text(&p.Words)
	c.previous(&p.PreviousKeyID)
	c.text(&p.KeyID)
	c.key = p.KeyID
	for _, t := range []*time.Time{&p.Started, &p.Created, &p.Published, &p.Disabled, &p.Deleted, &p.ProofAt} {
		c.time(t)
	}
	c.text((*string)(&p.Proof))
	n := int64(len(p.Probes))
	if c.number(&n); c.reads && n > 0 {
		p.Probes = make([]ProbeAnswer, n)
	}
	for i := range p.Probes {
		c.text(&p.Probes[i].Path)
		status := int64(p.Probes[i].Status)
		c.number(&status)
		p.Probes[i].Status = int(status)
	}
}

func (c *codec) number(n *int64) {
	if !c.reads {
		c.bytes = binary.AppendVarint(c.bytes, *n)
		return
	}
	value, size := binary.Varint([]byte(c.packed[:min(len(c.packed), binary.MaxVarintLen64)]))
	*n, c.packed = value, c.packed[size:]
}

func (c *codec) text(s *string) {
	n := int64(len(*s))
	if c.number(&n); c.reads {
		*s, c.packed = c.packed[:n], c.packed[n:]
		return
	}
	c.bytes = append(c.bytes, *s...)
}

// previous is a text that mostly is the last key.
func (c *codec) previous(s *string) {
	other := int64(1)
	if *s == c.key {
		other = 0
	}
	switch c.number(&other); {
	case other != 0:
		c.text(s)
	case c.reads:
		*s = c.key
	}
}

// time is the nanoseconds plus one, or 0 for no time, and the seconds since the last time. It is read back in UTC.
func (c *codec) time(t *time.Time) {
	var nanos, seconds int64
	if !t.IsZero() {
		nanos, seconds = int64(t.Nanosecond())+1, t.Unix()-c.at
	}
	if c.number(&nanos); nanos == 0 {
		return
	}
	c.number(&seconds)
	c.at += seconds
	if c.reads {
		*t = time.Unix(c.at, nanos-1).UTC()
	}
}
