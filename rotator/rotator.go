package rotator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
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

// Load replaces the set of policies and the clients of their workspaces. Work in flight continues with the policy as claimed, and
// unchanged policies keep what is known about them. Every policy's workspace must be in clients.
func (r *Rotator) Load(policies []plan.Policy, clients map[string]*elevenlabs.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loadWorkspaces(clients)
	old := r.policies
	r.loads++
	r.policies, r.inOrder = make(map[string]*policyState, len(policies)), nil
	for i := range policies {
		p := new(policies[i]) // a copy each, since a removed policy outlives the slice
		st := old[p.Name]
		if st == nil {
			st = r.removed[p.Name]
			delete(r.removed, p.Name)
		}
		if st == nil {
			st = &policyState{}
		}
		if old[p.Name] == nil {
			st.loadedAt, st.mayTakeBack = r.loads, r.loads > 1
		}
		st.load(p, r.workspaces[p.Workspace])
		r.policies[p.Name] = st
	}
	for name, st := range old {
		if r.policies[name] == nil {
			p := *st.policy
			p.Mode = plan.ModeRemoved
			st.policy = &p
			r.removed[name] = st
		}
	}
	for _, ws := range r.sortedWorkspaces {
		r.findStraysLocked(ws)
		ws.uncounted = 0
	}
	for _, st := range r.policies {
		if !st.counted {
			st.ws.uncounted++
		}
	}
	if slices.Compare(slices.Sorted(maps.Keys(old)), slices.Sorted(maps.Keys(r.policies))) != 0 {
		select {
		case r.reloaded <- struct{}{}:
		default:
		}
	}
	r.foretellLocked()
	for _, st := range r.orderedLocked() {
		r.enqueueLocked(st)
	}
}

// foretellLocked tells the store which documents rotations will check, in the order in which they will.
func (r *Rotator) foretellLocked() {
	refs := make([]ledger.Ref, 0, 2*len(r.policies))
	for _, st := range r.orderedLocked() {
		if st.policy.Mode != plan.ModeRemoved {
			refs = append(refs, r.entryRef(st.policy.Name), st.policy.Sink.Ref)
		}
	}
	r.outage.Expect(refs)
}

func (r *Rotator) loadWorkspaces(clients map[string]*elevenlabs.Client) {
	old := r.workspaces
	r.workspaces = make(map[string]*workspace, len(clients))
	for name, c := range clients {
		ws := old[name]
		if ws == nil {
			ws = &workspace{name: name, recent: map[string]time.Time{}}
		}
		ws.api = c
		r.workspaces[name] = ws
		if r.running && old[name] == nil {
			ws.beginLocked(r)
		}
	}
	r.sortedWorkspaces = slices.SortedFunc(maps.Values(r.workspaces), func(a, b *workspace) int { return strings.Compare(a.name, b.name) })
	for name, ws := range old {
		if r.workspaces[name] == nil && ws.stop != nil {
			ws.stop()
		}
	}
}

// Run works until ctx ends, then finishes the work in flight within the shutdown timeout. Unfinished work recovers at the next
// start. It is called once.
func (r *Rotator) Run(ctx context.Context) error {
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	r.awaitOwner(ctx)
	var workers sync.WaitGroup

	r.mu.Lock()
	r.running = true
	for _, ws := range r.workspaces {
		ws.beginLocked(r)
	}
	r.mu.Unlock()
	for range r.opt.Concurrency {
		workers.Go(func() { r.worker(work, &workers) })
	}
	r.loops.Go(func() { r.resyncLoop(ctx) })
	r.loops.Go(func() { r.probeLoop(ctx) })
	r.loops.Go(func() { r.announceLoop(ctx) })

	<-ctx.Done()
	r.stop()
	r.loops.Wait()
	defer r.leave(ctx)
	return r.drain(&workers, abort)
}

// stop keeps new work from starting.
func (r *Rotator) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping, r.running = true, false
	for _, ws := range r.workspaces {
		ws.stop()
	}
	for _, st := range r.policies {
		if st.timer != nil {
			st.timer.Stop()
		}
	}
	r.wakeUp.Broadcast()
}

func (r *Rotator) drain(workers *sync.WaitGroup, abort func()) error {
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	timer := time.NewTimer(r.opt.ShutdownTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		abort()
		<-done
		return errors.New("stopping: some work did not finish within the shutdown timeout; it recovers at the next start")
	}
}

// awaitOwner finds or makes this installation's id, which every key name needs. It retries until that works.
func (r *Rotator) awaitOwner(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.loadOwner(ctx, true)
		if err == nil {
			return
		}
		if errors.Is(err, ledger.ErrConflict) && sleep(ctx, 100*time.Millisecond) {
			continue // another replica made it first
		}
		r.outage.log(r.opt.Logger, "", err)
		r.failAll(err)
		sleep(ctx, max(r.opt.ReconcileInterval, time.Second))
	}
}

// loadOwner reads this installation's id, rebuilds it from any ledger entry, or, if there is no entry and create is set, makes
// it.
func (r *Rotator) loadOwner(ctx context.Context, create bool) error {
	ref := r.opt.Ledger.Join("owner")
	doc, err := r.opt.Store.Read(ctx, ref, 0)
	if err != nil {
		return fmt.Errorf("reading the ledger's owner: %w", err)
	}
	owner, _ := doc.Fields()["owner"].(string)
	if owner == "" {
		if owner, err = r.ownerOfEntries(ctx); err != nil || (owner == "" && !create) {
			return err
		}
		if owner == "" {
			if owner, err = ledger.RandomID(r.opt.Random, ledger.OwnerLength); err != nil {
				return err
			}
		}
		if !create {
			return r.setOwner(owner)
		}
		if _, err = r.opt.Store.Write(ctx, ref, map[string]any{"owner": owner}, doc.Version); err != nil {
			return fmt.Errorf("writing the ledger's owner: %w", err)
		}
	}
	return r.setOwner(owner)
}

func (r *Rotator) setOwner(owner string) error {
	if len(owner) != ledger.OwnerLength {
		return fmt.Errorf("reading the ledger's owner: %q is not an id of %d characters; %s was changed outside rekeyd", owner, ledger.OwnerLength, r.opt.Ledger.Join("owner"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner = owner
	return nil
}

func (r *Rotator) ownerOfEntries(ctx context.Context) (string, error) {
	names, err := r.EntryNames(ctx)
	if err != nil {
		return "", fmt.Errorf("looking for the ledger's owner: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		doc, err := r.opt.Store.Read(ctx, r.entryRef(name), 0)
		if err != nil {
			return "", fmt.Errorf("looking for the ledger's owner: %w", err)
		}
		if owner, _ := doc.Fields()["owner"].(string); owner != "" {
			return owner, nil
		}
	}
	return "", nil
}

// EntryNames lists the policies that have a ledger entry, loaded or not.
func (r *Rotator) EntryNames(ctx context.Context) ([]string, error) {
	return r.opt.Store.List(ctx, r.opt.Ledger.Join("policies"))
}

// CheckAccess returns an error if the store denies rekeyd access that it needs to one of these documents.
func (r *Rotator) CheckAccess(ctx context.Context, refs ...ledger.Ref) error {
	return r.opt.Store.Check(ctx, refs...)
}

func (r *Rotator) entryRef(policy string) ledger.Ref {
	return r.opt.Ledger.Join("policies").Join(policy)
}

// failAll counts a failure of the store for every policy: none can be read.
func (r *Rotator) failAll(err error) {
	r.mu.Lock()
	states := r.orderedLocked()
	r.mu.Unlock()
	for _, st := range states {
		r.noteStoreFailure(st, err)
	}
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
