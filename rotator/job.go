package rotator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// job is one step's work on one policy. While it holds the claim, no other process writes the entry. A takeover changes the
// entry's version, so the next write of this job is refused.
type job struct {
	r             *Rotator
	st            *policyState
	p             plan.Policy // as claimed; later edits show up as drift
	workspaceName string      // the workspace that api talks to
	api           *elevenlabs.Client
	log           *slog.Logger
	renewed       time.Time // when the last write of the claim began; monotonic
	begun         time.Time
	lost          time.Time                      // when a create was sent and its answer lost; zero: none
	unsure        bool                           // an earlier write of the record may still arrive
	attempted     bool                           // a publish may have been sent
	keys          map[[2]string][]elevenlabs.Key // of accounts, listed under this claim for a retirement
	answered      []string                       // ids of noted calls that were answered or never sent; the next write drops their notes
}

func (r *Rotator) newJob(st *policyState, p plan.Policy, s plan.Step) *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := st.ws
	if s.Workspace != "" && r.workspaces[s.Workspace] != nil {
		ws = r.workspaces[s.Workspace]
	}
	return &job{r: r, st: st, p: p, workspaceName: ws.name, api: ws.api, begun: time.Now(),
		log: r.opt.Logger.With("policy", p.Name, "action", string(s.Action), "trigger", string(s.Reason), "replica", r.holder)}
}

func (j *job) entry() *ledger.Entry { return j.st.known.entry }

// observed is the observation as far as it is known now.
func (j *job) observed() plan.Observed {
	_, ws := j.r.policyOf(j.st)
	return j.r.observed(j.st, j.p, ws)
}

// write changes the entry by check-and-set. After a lost answer it reads the ledger to learn whether the write happened, and
// sends it again only if it did not. ErrConflict and errClaimLost mean that another process wrote the entry. Unless the store
// refused the write for good, the entry is read again after a failure.
func (j *job) write(ctx context.Context, change func(*ledger.Entry)) error {
	k := &j.st.known
	next, err := j.changed(change)
	if err != nil {
		return err
	}
	begun := time.Now()
	for attempt := 1; ; attempt++ {
		version, err := j.r.opt.Store.Write(ctx, j.r.entryRef(j.p.Name), next, k.version)
		if err != nil {
			version, err = j.settleWrite(ctx, next, err)
		}
		switch {
		case err == nil:
			k.setEntry(next, version, time.Now())
			j.renewed, j.answered = begun, nil
			return nil
		case !ledger.MaybeWritten(err) || attempt == 4 || !j.pause(ctx, attempt):
			k.loaded = k.loaded && !ledger.MaybeWritten(err) && !claimLost(err)
			return fmt.Errorf("writing ledger entry: %w", err)
		}
	}
}

func (j *job) changed(change func(*ledger.Entry)) (*ledger.Entry, error) {
	var next *ledger.Entry
	var err error
	if j.entry() == nil {
		next, err = j.r.blankEntry(j.p.Name)
	} else {
		next = j.entry().Clone()
	}
	if err != nil {
		return nil, err
	}
	change(next)
	for k := range next.Keys() {
		for _, id := range j.answered {
			k.Settle(id)
		}
	}
	if !j.clockIsWrong() {
		next.ForgetOld(j.r.opt.Wall(), j.r.unlisted)
	}
	return next, nil
}

// clockIsWrong reports whether this host's clock is wrong, so that nothing may be dropped for its age.
func (j *job) clockIsWrong() bool {
	j.r.mu.Lock()
	defer j.r.mu.Unlock()
	return j.r.wrongClockLocked(j.api) != 0
}

// now is the time to write into ledger and record: this host's clock, corrected by the remotes if it is wrong.
func (j *job) now() time.Time {
	j.r.mu.Lock()
	defer j.r.mu.Unlock()
	return j.r.opt.Wall().Add(-j.r.wrongClockLocked(j.api))
}

// settleWrite finds out whether a failed write happened after all. It checks a conflict too: an earlier attempt of the same
// write may be the one that won.
func (j *job) settleWrite(ctx context.Context, next *ledger.Entry, failure error) (int, error) {
	if !ledger.MaybeWritten(failure) && !errors.Is(failure, ledger.ErrConflict) {
		return 0, failure
	}
	known := j.st.known.version
	if errors.Is(failure, ledger.ErrConflict) {
		known = j.r.beyond(ctx, known)
	}
	doc, _, err := j.r.newest(ctx, j.r.entryRef(j.p.Name), known, nil)
	switch {
	case err != nil:
		return 0, failure
	case doc.Version == j.st.known.version+1 && next.Equal(doc.JSON):
		return doc.Version, nil
	case doc.Version == j.st.known.version:
		return 0, failure
	}
	return 0, errClaimLost
}

const publishTries = 6

// pause waits before a retry, longer each time. It reports false if ctx ended.
func (j *job) pause(ctx context.Context, attempt int) bool {
	d := min(250*time.Millisecond<<(attempt-1), 5*time.Second)
	return sleep(ctx, d/2+time.Duration(j.r.jitter()*float64(d)/2))
}

// takeClaim makes this process the claim holder, or renews its claim.
func (j *job) takeClaim(e *ledger.Entry) {
	nonce := 1
	if e.Claim != nil {
		nonce = e.Claim.Nonce + 1
	}
	e.Claim = &ledger.Claim{Holder: j.r.holder, Nonce: nonce, Since: j.r.opt.Wall(), TTL: ledger.Duration(j.r.opt.ClaimTTL)}
}

// guard runs before every write to a remote: it renews an aging claim, and stops the job if the claim was not renewed for half
// a claim TTL, since another replica may soon take it over. It saves wasted work and proves nothing: the process may be
// suspended right after it.
func (j *job) guard(ctx context.Context) error {
	if time.Since(j.renewed) > j.r.opt.ClaimTTL/4 {
		if err := j.write(ctx, j.takeClaim); err != nil {
			return err
		}
	}
	if time.Since(j.renewed) >= j.r.opt.ClaimTTL/2 {
		return errClaimStale
	}
	return nil
}

// ready runs before every write to ElevenLabs: it waits for the rate budget first, so that only guard runs between the wait and
// the call. The returned context is for that one call.
func (j *job) ready(ctx context.Context) (context.Context, error) {
	ctx, err := j.api.Reserve(ctx)
	if err != nil {
		return ctx, err
	}
	if err = j.guard(ctx); err != nil {
		elevenlabs.Cancel(ctx)
	}
	return ctx, err
}

// release makes a last change and drops the claim in the same write.
func (j *job) release(ctx context.Context, change func(*ledger.Entry)) error {
	return j.write(ctx, func(e *ledger.Entry) {
		if change != nil {
			change(e)
		}
		e.Claim, e.Intent = nil, nil
	})
}

// failing notes a failure in the entry, where the time of the next attempt survives a restart.
func (j *job) failing(e *ledger.Entry, f *stageError) {
	if errors.Is(f, errNotDue) {
		return // it was called off, so it did not fail
	}
	count := 1
	if e.Failure != nil {
		count = e.Failure.Count + 1
	}
	now := j.r.opt.Wall()
	e.Failure = &ledger.LastFailure{Stage: f.stage, Reason: f.reason, Message: message(f.err, f.reason), At: now, Count: count, NextTry: now.Add(j.wait(count, f))}
}

func (j *job) wait(count int, f *stageError) time.Duration {
	if f.reason == ledger.FailureInterrupted && count == 1 {
		return 0 // no remote refused us; a second crash in a row may be our own fault
	}
	return max(backoff(j.r.opt.ReconcileInterval, count, j.r.jitter()), retryAfter(f.err))
}

// audit logs a change to a key or a record; each change gets one line.
func (j *job) audit(msg string, args ...any) {
	j.log.Info(msg, append(args, "outcome", "done")...)
}

// retiringOf returns the retiring state of the key that is being replaced, as the last listing shows it. until is the end of the
// overlap that the record promised, if known.
func (j *job) retiringOf(old ledger.KeyRef, why ledger.Trigger, now, until time.Time) ledger.Retiring {
	j.r.mu.Lock()
	disabled, listed := j.r.listedLocked(old, j.st.known.unusual().changedSince)
	j.r.mu.Unlock()
	return plan.RetiringOf(j.p, old, why, disabled, listed, now, until)
}

// stillPlanned reports whether the plan still contains the step.
func (j *job) stillPlanned(s plan.Step) bool {
	return slices.Contains(plan.Plan(j.p, j.observed(), j.r.opt.Wall()).Steps, s)
}

func (j *job) listedKey(id string) plan.ListedKey {
	k, _ := j.observed().Key(id)
	return k
}
