package web

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
)

// The limits of the alerts of the same names, as deploy/mixin ships them.
const (
	stalledAfter  = 30 * time.Minute
	skewTolerated = 2 * time.Minute
	lossShown     = time.Hour
	accountsNear  = 18
	accountsLimit = 20
)

// vitals are what the page knows of the daemon itself, beside the rotator's snapshot.
type vitals struct {
	started     time.Time
	interval    time.Duration // between two listings of a workspace
	reloadFault string        // why the last reload failed; "" when it did not
	skew        rotator.Skew
	tokenEnds   time.Time // of a Vault token that is about to end and that nothing renews; else zero
	lost        time.Time // when an event was last given up; zero: none was
	lostWhy     string
}

func (s *Server) vitals(now time.Time) vitals {
	v := vitals{started: s.started, interval: s.cfg.ReconcileInterval, reloadFault: s.cfg.ReloadFault(), skew: s.skew()}
	if s.cfg.TokenEnding != nil {
		if at, ending := s.cfg.TokenEnding(now); ending {
			v.tokenEnds = at
		}
	}
	if s.cfg.EventLost != nil {
		v.lost, v.lostWhy = s.cfg.EventLost()
	}
	return v
}

// matters are what a person should look at of the daemon itself.
func (v vitals) matters(now time.Time) []matter {
	var all []matter
	if left := v.tokenEnds.Sub(now); !v.tokenEnds.IsZero() {
		words := "The Vault token ends in " + Span(left) + ", and nothing renews it."
		if left <= 0 {
			words = "The Vault token has ended, " + Span(-left) + " ago."
		}
		all = append(all, matter{alert: tokenEnding, words: words})
	}
	if v.reloadFault != "" {
		all = append(all, matter{alert: reloadFailed, words: "The policy file was changed and cannot be used; the old policies stay in force: " + v.reloadFault})
	}
	if words := skewWords(v.skew); words != "" {
		all = append(all, matter{alert: clockSkew, words: words})
	}
	if !v.lost.IsZero() && now.Sub(v.lost) < lossShown {
		all = append(all, matter{alert: eventsNotDelivered, words: fmt.Sprintf("An event was given up %s ago, and will not be sent again: %s", Span(now.Sub(v.lost)), sentence(v.lostWhy))})
	}
	return all
}

// skewWords says from which clocks this host's differs; of the workspaces', from that from which it differs most.
func skewWords(s rotator.Skew) string {
	var all []string
	compare := func(d time.Duration, whose string) {
		way := "ahead of"
		if d < 0 {
			way = "behind"
		}
		if d.Abs() > skewTolerated {
			all = append(all, fmt.Sprintf("%s %s that of %s", Span(d.Abs()), way, whose))
		}
	}
	if names := slices.Sorted(maps.Keys(s.Workspaces)); len(names) > 0 {
		most := slices.MaxFunc(names, func(x, y string) int { return cmp.Compare(s.Workspaces[x].Abs(), s.Workspaces[y].Abs()) })
		compare(s.Workspaces[most], "ElevenLabs (workspace "+most+")")
	}
	if s.Store != nil {
		compare(*s.Store, "Vault")
	}
	if len(all) == 0 {
		return ""
	}
	return "The clock of this host is " + strings.Join(all, " and ") + "."
}

// workspaceMatters are what a person should look at of a workspace: that it cannot be listed, and that it is nearly full.
func (v vitals) workspaceMatters(ws rotator.WorkspaceStatus, refused bool, now time.Time) []matter {
	var all []matter
	unlisted := now.Sub(ws.LastReconcile)
	if ws.LastReconcile.IsZero() {
		unlisted = now.Sub(v.started)
	}
	stalled := unlisted > max(stalledAfter, 2*v.interval)
	switch {
	case refused:
		all = append(all, matter{alert: adminKeyRefused, words: "Workspace " + ws.Name + ": " + text(ws.Err)})
	case stalled && ws.Err != nil:
		all = append(all, matter{alert: loopStalled, words: fmt.Sprintf("Workspace %s could not be listed for %s: %s", ws.Name, Span(unlisted), text(ws.Err))})
	case stalled:
		all = append(all, matter{alert: loopStalled, words: fmt.Sprintf("Workspace %s was not listed for %s: the loop stands still.", ws.Name, Span(unlisted))})
	case ws.Err != nil:
		all = append(all, matter{alert: workspaceDown, words: "Workspace " + ws.Name + ": " + text(ws.Err)})
	}
	// One that has more accounts than the limit evidently has a higher one.
	if n := len(ws.Accounts); n >= accountsNear && n <= accountsLimit {
		all = append(all, matter{alert: workspaceLimitNear, words: fmt.Sprintf("Workspace %s has %d service accounts, of %d that ElevenLabs allows by default.", ws.Name, n, accountsLimit)})
	}
	return all
}
