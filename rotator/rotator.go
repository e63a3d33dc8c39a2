package rotator

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Options is what a [Rotator] needs. The durations and counts are the REKEYD_ variables of the same names.
type Options struct {
	Store ledger.Store
	// KeepsVersions says that the store keeps earlier versions of a record, so that the secret of a disabled key can be tried.
	KeepsVersions bool
	Ledger        ledger.Ref // folder of the ledger: policies/NAME, groups/NAME and owner lie below it
	Logger        *slog.Logger

	Concurrency         int // rotations in flight; a slow one gets a substitute worker, but no workspace has more in flight, and as many again that are urgent
	ReconcileInterval   time.Duration
	ResyncInterval      time.Duration
	ClaimTTL            time.Duration
	VerifyTimeout       time.Duration
	ShutdownTimeout     time.Duration
	MaxRotationsPerHour int // per workspace; 0 is no limit

	Redactor *secret.Redactor // holds issued secrets while they are in flight; may be nil
	// Observe receives every state change, for metrics and events. It must not block.
	Observe func(Event)
	// Random is the source of ids and jitter; nil is crypto/rand.
	Random io.Reader
	// Wall is the time of day that is stored and compared with stored times; nil is time.Now. Measured durations (claims,
	// timeouts) use the monotonic clock instead.
	Wall func() time.Time
}

// Rotator keeps the keys of a set of policies as the policies say.
type Rotator struct {
	opt    Options
	holder string // this process in claims; a restart makes another
	outage *outageTracker

	mu               quietMutex
	wakeUp           *sync.Cond // the queue or stopping changed
	owner            string
	policies         map[string]*policyState
	removed          map[string]*policyState // in the ledger, but no longer loaded
	inOrder          []*policyState          // what orderedLocked returns; nil: out of date
	workspaces       map[string]*workspace
	sortedWorkspaces []*workspace // the same, by name
	queue            []*policyState
	loads            int           // counts the calls of Load
	reloaded         chan struct{} // holds a value once the set of policies changed
	stopping         bool
	running          bool
	loops            sync.WaitGroup // begun only while running, with mu held
	randomMu         sync.Mutex
	lags             atomic.Bool // a read lagged behind a write
}

// New returns a Rotator without policies; Load adds them.
func New(o Options) (*Rotator, error) {
	if o.Random == nil {
		o.Random = rand.Reader
	}
	wall := o.Wall
	if wall == nil {
		wall = time.Now
	}
	o.Wall = func() time.Time { return wall().UTC() } // the ledger is read by people in other zones
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Store == nil || o.Logger == nil {
		return nil, errors.New("a rotator needs a store and a logger")
	}
	o.Concurrency = max(o.Concurrency, 1)
	holder, err := ledger.RandomID(o.Random, 12)
	if err != nil {
		return nil, err
	}
	r := &Rotator{opt: o, holder: holder, policies: map[string]*policyState{}, removed: map[string]*policyState{}, workspaces: map[string]*workspace{}, reloaded: make(chan struct{}, 1)}
	r.wakeUp = sync.NewCond(&r.mu)
	r.outage = newOutageTracker(o.Store)
	r.opt.Store = r.outage
	return r, nil
}

func (r *Rotator) entryRef(policy string) ledger.Ref {
	return r.opt.Ledger.Join("policies").Join(policy)
}

// jitter returns a random fraction from 0 to 1.
func (r *Rotator) jitter() float64 {
	r.randomMu.Lock()
	defer r.randomMu.Unlock()
	var b [2]byte
	if _, err := io.ReadFull(r.opt.Random, b[:]); err != nil {
		return 0.5
	}
	return (float64(b[0])*256 + float64(b[1])) / 65536
}

func (r *Rotator) newID(n int) (string, error) {
	r.randomMu.Lock()
	defer r.randomMu.Unlock()
	return ledger.RandomID(r.opt.Random, n)
}

// sleep waits for d or until ctx ends, and reports whether d passed.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Owner returns this installation's id, "" while it is unknown.
func (r *Rotator) Owner() string { return r.ownerID() }

func (r *Rotator) ownerID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

// policyOf returns the policy as it is loaded now, and its workspace.
func (r *Rotator) policyOf(st *policyState) (plan.Policy, *workspace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *st.policy, st.ws
}

// isStopping reports whether new work must not start.
func (r *Rotator) isStopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}

// redact removes a secret from all that remotes answer, until release is called.
func (r *Rotator) redact(s secret.Secret) (release func()) {
	if r.opt.Redactor == nil {
		return func() {}
	}
	return r.opt.Redactor.Add(s)
}

// logLocked logs once Rotator.mu is unlocked.
func (r *Rotator) logLocked(level slog.Level, msg string, args ...any) {
	r.mu.afterUnlock(func() { r.opt.Logger.Log(context.Background(), level, msg, args...) })
}

// observeLocked reports an event once Rotator.mu is unlocked.
func (r *Rotator) observeLocked(e Event) { r.mu.afterUnlock(func() { r.opt.Observe(e) }) }

func (r *Rotator) apiOf(workspace string) *elevenlabs.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ws := r.workspaces[workspace]; ws != nil {
		return ws.api
	}
	return nil
}

// CheckAccess returns an error if the store denies rekeyd access that it needs to one of these documents.
func (r *Rotator) CheckAccess(ctx context.Context, refs ...ledger.Ref) error {
	return r.opt.Store.Check(ctx, refs...)
}
