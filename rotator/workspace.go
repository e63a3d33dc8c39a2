package rotator

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// workspace is one ElevenLabs workspace: its client, its last listing, and the loop that makes it. All fields but
// name are guarded by Rotator.mu.
type workspace struct {
	name         string
	api          *elevenlabs.Client
	listing      *listing
	err          error                // of the last listing
	lastSuccess  time.Time            // wall time of the last successful listing
	healthySince time.Time            // wall time of the first listing since the last failed one
	lastAttempt  time.Time            // wall time of the last listing, successful or not
	recent       map[string]time.Time // policies rotated in the last hour, for the hourly limit
	oldest       time.Time            // no time in recent is before it
	// uncounted is how many entries of its loaded policies are unread; until it is 0 the hourly limit cannot be checked.
	uncounted int
	skewed    bool // the clock difference was logged
	// settingsUnknown says that it was logged which settings its listing does not show.
	settingsUnknown bool
	busy            int // workers on its policies
	stop            context.CancelFunc
}

// listing is one answer of a workspace, with our own later changes to its keys.
type listing struct {
	seq      int
	begun    time.Time // monotonic, before the request
	accounts map[string][]elevenlabs.Key
	counted  []AccountKeys               // of accounts, without our later changes
	owned    map[string][]elevenlabs.Key // by the policy in the key's name
	strays   bool                        // owned has keys of policies that are not in this workspace
}

// beginLocked starts the workspace's reconcile loop.
func (ws *workspace) beginLocked(r *Rotator) {
	ctx, stop := context.WithCancel(context.Background())
	ws.stop = stop
	r.loops.Go(func() { r.reconcileLoop(ctx, ws) })
}

// reconcileLoop lists the workspace and wakes its policies, once at the start and then once per reconcile interval. Only these
// listings probe an outage of the workspace.
func (r *Rotator) reconcileLoop(ctx context.Context, ws *workspace) {
	r.reconcile(ctx, ws)
	for wait := r.firstWait(ws); sleep(ctx, wait); wait = r.opt.ReconcileInterval {
		r.reconcile(ctx, ws)
	}
}

// firstWait spreads the listings of the workspaces, which all begin at once, over the interval from their second on. No two listings
// are less than an interval apart: what two of them agree on, such as that a key is missing or not used, counts.
func (r *Rotator) firstWait(ws *workspace) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	turn, of := max(slices.Index(r.sortedWorkspaces, ws), 0), max(len(r.sortedWorkspaces), 1)
	return r.opt.ReconcileInterval + r.opt.ReconcileInterval*time.Duration(turn)/time.Duration(of)
}

func (r *Rotator) reconcile(ctx context.Context, ws *workspace) {
	begun := time.Now()
	r.mu.Lock()
	api := ws.api // a reload may change it
	r.mu.Unlock()
	accounts, err := api.ServiceAccounts(elevenlabs.WithPatience(ctx, urgent)) // it shows the leaks
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.advisedLocked(ws, err)
	r.logListing(ws, err)
	r.logSkewLocked(ws)
	ws.lastAttempt = r.opt.Wall()
	if ws.listing == nil || ws.err != nil {
		ws.healthySince = ws.lastAttempt
	}
	back := ws.err != nil && err == nil
	if ws.err = err; err == nil {
		ws.lastSuccess = ws.lastAttempt
		ws.listing = r.index(ws, accounts, begun)
		r.findStraysLocked(ws)
	}
	for _, st := range r.orderedLocked() {
		if st.ws == ws {
			st.inbox.hurry = st.inbox.hurry || back
			r.enqueueLocked(st)
		}
	}
}

func (r *Rotator) logListing(ws *workspace, err error) {
	was, is := ledger.Failure(""), ledger.Failure("")
	if ws.err != nil {
		was = FailureOf(ws.err)
	}
	if err != nil {
		is = FailureOf(err)
	}
	switch {
	case was == is:
	case err == nil:
		r.logLocked(slog.LevelInfo, "workspace available again", "workspace", ws.name)
	default:
		r.logLocked(slog.LevelError, "listing workspace failed", "workspace", ws.name, "failure", is, "err", err)
	}
}

// index arranges a listing by account and by the policy in the keys' names.
func (r *Rotator) index(ws *workspace, accounts []elevenlabs.ServiceAccount, begun time.Time) *listing {
	l := &listing{begun: begun, accounts: make(map[string][]elevenlabs.Key, len(accounts)), owned: map[string][]elevenlabs.Key{}}
	if ws.listing != nil {
		l.seq = ws.listing.seq
	}
	l.seq++
	for _, a := range accounts {
		l.accounts[a.ID] = a.Keys
		l.counted = append(l.counted, AccountKeys{a.ID, len(a.Keys)})
		for i, k := range a.Keys {
			owner, policy, _, ok := ledger.ParseKeyName(k.Name)
			switch others := l.owned[policy]; {
			case !ok || owner != r.owner:
			case others == nil:
				l.owned[policy] = a.Keys[i : i+1 : i+1] // the usual case, without a copy
			default:
				l.owned[policy] = append(others, k)
			}
		}
	}
	slices.SortFunc(l.counted, func(a, b AccountKeys) int { return strings.Compare(a.Account, b.Account) })
	return l
}

// counts is none before the first listing.
func (l *listing) counts() []AccountKeys {
	if l == nil {
		return nil
	}
	return l.counted
}

// findStraysLocked notes whether a workspace lists keys of policies that are not in it. Usually there are none, which saves each
// policy a search of every workspace.
func (r *Rotator) findStraysLocked(ws *workspace) {
	if ws.listing == nil {
		return
	}
	ws.listing.strays = false
	for policy := range ws.listing.owned {
		if st := r.policies[policy]; st == nil || st.policy.Workspace != ws.name {
			ws.listing.strays = true
			return
		}
	}
}

// noteRotationLocked counts a rotation towards the hourly limit.
func (ws *workspace) noteRotationLocked(policy string, at time.Time) {
	if len(ws.recent) == 0 || at.Before(ws.oldest) {
		ws.oldest = at
	}
	ws.recent[policy] = at
}

// noteCounted notes that a policy's entry was read, or cannot be parsed. The last entry of a workspace lets its rotations begin.
func (r *Rotator) noteCounted(st *policyState, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.counted || ledger.IsOutage(err) || errors.Is(err, context.Canceled) {
		return
	}
	st.counted = true
	if r.policies[st.policy.Name] != st {
		return
	}
	if st.ws.uncounted--; st.ws.uncounted > 0 {
		return
	}
	for _, other := range r.orderedLocked() {
		if other.ws == st.ws {
			r.enqueueLocked(other)
		}
	}
}

// rotationsLocked counts the workspace's rotations of the last hour, as this replica knows them, without those of one policy. It
// runs at every look at every policy, so it scans the rotations only when the oldest expires.
func (ws *workspace) rotationsLocked(now time.Time, but string) int {
	if now.Sub(ws.oldest) > time.Hour {
		ws.oldest = now
		for policy, at := range ws.recent {
			switch {
			case now.Sub(at) > time.Hour:
				delete(ws.recent, policy)
			case at.Before(ws.oldest):
				ws.oldest = at
			}
		}
	}
	n := len(ws.recent)
	if _, counted := ws.recent[but]; counted {
		n--
	}
	return n
}
