package simulation_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

var direct = flag.String("profile", "", "what to fix in every seed's profile, separated by commas: a kind of chaos, one with a minus to go without, or do=what others do")

// directed fixes what the words name: a seed that is to meet one mistake need not draw its circumstances.
func (p *profile) directed(words string, seed uint64) error {
	only := false
	for word := range strings.SplitSeq(words, ",") {
		kind, without := strings.CutPrefix(word, "-")
		if what, found := strings.CutPrefix(word, "do="); found {
			if !slices.Contains(meddlings(), what) {
				return fmt.Errorf("others never do this: %s", what)
			}
			if !only {
				p.meddling, only = nil, true
			}
			p.meddling = append(p.meddling, what, what)
			continue
		}
		choose := func(chance float64) float64 {
			if without {
				return 0
			}
			return chance
		}
		who := 0
		if without {
			who = -1
		}
		switch kind {
		case "":
		case "late":
			p.late = choose(0.15)
		case "doubled":
			p.doubled = choose(0.2)
		case "fault":
			p.fault = choose(0.1)
		case "crash":
			p.crash = choose(0.05)
		case "freeze":
			p.freeze = choose(0.05)
		case "suspended":
			p.suspended = who
		case "wrong":
			p.wrong = who
		case "ttls":
			p.equal = without
		case "asks":
			p.asks = !without
		case "adopt":
			p.adopt, p.listLag = !without, 0
		case "standbys", "unindexed":
			if p.standbys = someStandbys(seed); without {
				p.standbys = standbys{}
			}
			p.indexed = p.indexed && kind == "standbys"
		case "scarce":
			p.makeScarce(seed)
			if without {
				p.budget = 0
			}
		case "team":
			p.team = !without
		case "outages":
			p.outages = int(choose(4))
		case "meddling":
			p.meddling = nil
		case "uses":
			p.uses = !without
		case "again":
			p.again = !without
		case "rename":
			p.meddling = slices.DeleteFunc(p.meddling, func(m string) bool { return m == "rename policy" })
		case "edits":
			p.meddling = slices.DeleteFunc(p.meddling, func(m string) bool {
				return strings.HasPrefix(m, "move") || strings.HasPrefix(m, "mode") || strings.HasPrefix(m, "rename") || strings.HasPrefix(m, "remove policy")
			})
		case "probes":
			p.probes = !without
		case "waits":
			p.waits = !without
		case "months":
			p.months = !without
		case "disablelag":
			p.disableLag = time.Duration(choose(float64(45 * time.Minute)))
		case "lag":
			p.listLag = time.Duration(choose(float64(40 * time.Second)))
		case "replicas":
			p.replicas = 2
		default:
			return fmt.Errorf("a profile has no %q", kind)
		}
	}
	return nil
}
