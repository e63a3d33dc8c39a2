package rotator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// job is one step's work on one policy. While it holds the claim, nobody else writes the entry; whoever takes the
// claim over changes the entry's version, so that the next write of this job is refused.
type job struct {
	r             *Rotator
	st            *policyState
	p             plan.Policy // as claimed: later edits are drift afterwards
	workspaceName string      // name of the workspace that api talks to
	api           *elevenlabs.Client
	log           *slog.Logger
	renewed       time.Time // when the last write that holds the claim was begun; monotonic
	begun         time.Time
	lost          time.Time                      // when a create was sent whose answer was lost; zero: none
	unsure        bool                           // a write of the record may yet happen
	attempted     bool                           // a publish may have been sent
	keys          map[[2]string][]elevenlabs.Key // of accounts, listed under this claim for a retirement
	answered      []string                       // ids of noted calls that were answered, or never sent; the next write takes their notes away
}

func (r *Rotator) newJob(st *policyState, p plan.Policy, s plan.Step) *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := st.ws
	if s.Workspace != "" && r.workspaces[s.Workspace] != nil {
		ws = r.workspaces[s.Workspace]
	}
	return &job{r: r, st: st, p: p, workspaceName: ws.name, api: ws.api, begun: time.Now(),
		log: r.opt.Logger.With("policy", p.Name, "action", string(s.Action), "reason", string(s.Reason), "replica", r.holder)}
}

func (j *job) entry() *ledger.Entry { return j.st.known.entry }

// blankEntry returns the entry of a policy that has none yet.
func (r *Rotator) blankEntry(policy string) (*ledger.Entry, error) {
	salt, err := r.newID(16)
	if err != nil {
		return nil, err
	}
	return &ledger.Entry{Schema: ledger.Schema, Owner: r.ownerID(), Policy: policy, Salt: salt}, nil
}

// write changes the entry by check-and-set. After an answer that was lost, the ledger is read to learn what became of
// it; the same write is sent again only where it was seen not to have happened. ErrConflict and errClaimLost mean
// that somebody else wrote.
func (j *job) write(ctx context.Context, change func(*ledger.Entry)) error {
	k := &j.st.known
	next, err := j.changed(change)
	if err != nil {
		return err
	}
	data, begun := next.Data(), time.Now()
	for attempt := 1; ; attempt++ {
		version, err := j.r.opt.Store.Write(ctx, j.r.entryRef(j.p.Name), data, k.version)
		if err != nil {
			version, err = j.settleWrite(ctx, next, err)
		}
		switch {
		case err == nil:
			k.setEntry(next, version, time.Now())
			j.renewed, j.answered = begun, nil
			return nil
		case !ledger.MaybeWritten(err) || attempt == 4 || !j.pause(ctx, attempt):
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

// clockIsWrong reports that nothing can be forgotten by its age: this host does not know what time it is.
func (j *job) clockIsWrong() bool {
	j.r.mu.Lock()
	defer j.r.mu.Unlock()
	return j.r.wrongClockLocked(j.api) != 0
}

// settleWrite finds out whether a write that failed has happened all the same. A conflict needs a look as well: the
// write that was sent before may have been the one that won.
func (j *job) settleWrite(ctx context.Context, next *ledger.Entry, failure error) (int, error) {
	if !ledger.MaybeWritten(failure) && !errors.Is(failure, ledger.ErrConflict) {
		return 0, failure
	}
	doc, err := j.r.opt.Store.Read(ctx, j.r.entryRef(j.p.Name), 0)
	switch {
	case err != nil:
		return 0, failure
	case doc.Version == j.st.known.version+1 && next.Equal(doc.JSON):
		return doc.Version, nil
	case doc.Version == j.st.known.version:
		return 0, failure
	}
	j.st.known.loaded = false
	return 0, errClaimLost
}

// pause waits a little before a call is repeated, longer each time, and keeps within what the claim allows.
func (j *job) pause(ctx context.Context, attempt int) bool {
	d := min(250*time.Millisecond<<(attempt-1), 5*time.Second)
	return sleep(ctx, d/2+time.Duration(j.r.jitter()*float64(d)/2))
}

// takeClaim returns the change that makes this process the holder.
func (j *job) takeClaim(e *ledger.Entry) {
	nonce := 1
	if e.Claim != nil {
		nonce = e.Claim.Nonce + 1
	}
	e.Claim = &ledger.Claim{Holder: j.r.holder, Nonce: nonce, Since: j.r.opt.Wall()}
}

// guard is passed before every write to a remote: it renews a claim that is getting old, and refuses to go on under
// one that was not renewed for half a claim TTL, since another replica may soon act on it. That spares work in vain and is
// no proof of anything: the process may be suspended right after it.
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

// ready is passed before every write to ElevenLabs: it waits for the rate budget, and then for nothing more but the guard.
// The context that it returns is for that one call.
func (j *job) ready(ctx context.Context) (context.Context, error) {
	ctx, err := j.api.Reserve(ctx)
	if err != nil {
		return ctx, err
	}
	return ctx, j.guard(ctx)
}

// release gives the claim back together with a last change.
func (j *job) release(ctx context.Context, change func(*ledger.Entry)) error {
	return j.write(ctx, func(e *ledger.Entry) {
		if change != nil {
			change(e)
		}
		e.Claim, e.Intent = nil, nil
	})
}

// failing notes a failure in the entry; the time of the next attempt survives a restart there.
func (j *job) failing(e *ledger.Entry, f *stageError) {
	if errors.Is(f, errNotDue) {
		return // it was called off, whatever became of the claim
	}
	count := 1
	if e.Failure != nil {
		count = e.Failure.Count + 1
	}
	now := j.r.opt.Wall()
	e.Failure = &ledger.Failure{Stage: f.stage, Reason: f.reason, Message: sentence(f.err), At: now, Count: count, NextTry: now.Add(j.wait(count, f))}
}

func (j *job) wait(count int, f *stageError) time.Duration {
	if f.reason == ledger.ReasonInterrupted && count == 1 {
		return 0 // nothing refused us; a second crash in a row may be our own doing
	}
	return max(backoff(j.r.opt.ReconcileInterval, count, j.r.jitter()), retryAfter(f.err))
}

// postpone remembers the next attempt here, where the ledger cannot be told.
func (j *job) postpone(f *stageError) {
	j.st.known.retryAt = j.r.opt.Wall().Add(j.wait(1, f))
	if ledger.IsOutage(f.err) {
		j.st.known.retryAt = time.Time{} // an outage is probed, not backed off
	}
}

// audit writes the one line that each change to a key or a record gets.
func (j *job) audit(msg string, args ...any) {
	j.log.Info(msg, append(args, "outcome", "done")...)
}
