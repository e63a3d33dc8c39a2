package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// wanted is one policy of the file.
type wanted struct {
	name, account, path, schedule string
	splay, overlap                time.Duration
	limit                         int64
	was                           string // the name that it had before
}

func (p wanted) yaml() string {
	return fmt.Sprintf("- name: %s\n  service_account: %s\n  schedule: '%s'\n  splay: %s\n  overlap: %s\n  quarantine: 1h\n  permissions: [text_to_speech, user_read]\n"+
		"  character_limit: %d\n  sink: {path: %s}\n", p.name, p.account, p.schedule, p.splay, p.overlap, p.limit, p.path)
}

func (p wanted) place() string { return p.account + " " + p.path }

func shownAs(name, account, path, schedule string, overlap, splay time.Duration, limit int64) string {
	return fmt.Sprint(name, " ", account, " ", path, " ", schedule, " overlap ", overlap, " splay ", splay, " limit ", limit)
}

func byName(ps []wanted) []wanted {
	return slices.SortedFunc(slices.Values(ps), func(a, b wanted) int { return strings.Compare(a.name, b.name) })
}

// schedules have no gap under three hours.
func (e *editing) schedule() string {
	return []string{"@every 3h", "@every 4h30m", "0 */6 * * *", "15 1,5,9,13,17,21 * * *", "30 */3 * * *"}[e.r.IntN(5)]
}

func (e *editing) account() string { return []string{"svcacc_a", "svcacc_b"}[e.r.IntN(2)] }

func (e *editing) newPath() string {
	e.made++
	return fmt.Sprintf("app/path-%d", e.made)
}

// another returns a policy that was never there before.
func (e *editing) another() wanted {
	path := e.newPath()
	return wanted{name: fmt.Sprintf("p%d", e.made), account: e.account(), path: path, schedule: e.schedule(),
		splay: e.splay(), overlap: e.overlap(), limit: 1000}
}

func (e *editing) splay() time.Duration   { return time.Duration(e.r.IntN(20)) * time.Minute }
func (e *editing) overlap() time.Duration { return time.Duration(5+e.r.IntN(120)) * time.Minute }

// render writes the policies in any order, with a comment that no other file has.
func (e *editing) render(ps []wanted) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %d\npolicies:\n", e.r.Uint64())
	for _, i := range e.r.Perm(len(ps)) {
		b.WriteString(ps[i].yaml())
	}
	e.text = b.String()
	return e.text
}

// edited returns the last valid file with one change.
func (e *editing) edited() (next []wanted, what string) {
	next = slices.Clone(e.file)
	for i := range next {
		next[i].was = ""
	}
	i := e.r.IntN(len(next))
	p := &next[i]
	switch e.r.IntN(16) {
	case 0:
		if len(next) < 8 {
			return append(next, e.another()), "added"
		}
		return next, "touched"
	case 1:
		if len(next) > 3 {
			return slices.Delete(next, i, i+1), "removed " + p.name
		}
		return next, "touched"
	case 2, 3, 4, 11, 12, 13, 14:
		p.schedule = e.schedule()
		return next, "schedule of " + p.name
	case 5:
		p.splay = e.splay()
		return next, "splay of " + p.name
	case 6:
		p.overlap = e.overlap()
		return next, "overlap of " + p.name
	case 7, 8:
		p.limit = 1000 + e.r.Int64N(1000)
		return next, "settings of " + p.name
	case 9:
		return e.movedAway(next, p), "place of " + p.name
	case 10:
		if !e.oracle.settled(p.name) { // a name without a key of its own leaves nothing to take over
			return next, "touched"
		}
		e.made++
		p.was, p.name = p.name, fmt.Sprintf("p%d", e.made)
		return next, "name of " + p.was + ", now " + p.name
	}
	return next, "touched"
}

func (e *editing) movedAway(next []wanted, p *wanted) []wanted {
	if e.r.IntN(2) == 0 {
		p.path = e.newPath()
	} else {
		p.account = e.account()
	}
	return next
}

// broken returns a file that must not be accepted.
func (e *editing) broken() (text, what string) {
	p := e.file[e.r.IntN(len(e.file))].yaml()
	with := func(old, by string) string { return strings.Replace(e.text, p, strings.Replace(p, old, by, 1), 1) }
	switch what = []string{"no file", "empty", "no policies", "tab", "NUL", "cut off", "unknown field", "twice", "never fires", "prefix",
		"overlap", "permission", "negative", "workspace", "Latin-1"}[e.r.IntN(15)]; what {
	case "no policies":
		text = "policies: []\n"
	case "tab":
		text = e.text + "\t- name: x\n"
	case "NUL":
		text = e.text + "# \x00\n"
	case "cut off":
		text = e.text[:strings.LastIndex(e.text, "sink:")-e.r.IntN(2)]
	case "unknown field":
		text = with("splay:", "splya:")
	case "twice":
		text = e.text + p
	case "never fires":
		text = with("schedule: '", "schedule: '0 0 30 2 *' #")
	case "prefix":
		text = with("schedule: '", "schedule: 'TZ=")
	case "overlap":
		text = with("overlap: ", "overlap: 400h #")
	case "permission":
		text = with("text_to_speech", "text_to_spech")
	case "negative":
		text = with("quarantine: ", "quarantine: -")
	case "workspace":
		text = with("  splay", "  workspace: nowhere\n  splay")
	case "Latin-1":
		text = "# caf\xe9\n" + e.text
	}
	return text, what
}
