package plan

import (
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// Mode says how much of a policy's work happens without a request.
type Mode string

// The modes of a policy.
const (
	ModeAuto   Mode = "auto"   // everything
	ModeManual Mode = "manual" // no scheduled runs, no rotation for drift; otherwise like auto
	ModePaused Mode = "paused" // observes, writes nothing

	// ModeRemoved is the mode of a policy that is no longer loaded: its retiring keys are still retired, its current key stays.
	ModeRemoved Mode = "removed"
)

// OnDrift says what to do when the current key's settings differ from the policy.
type OnDrift string

// The answers to drift.
const (
	DriftPatch  OnDrift = "patch"
	DriftRotate OnDrift = "rotate"
	DriftReport OnDrift = "report"
)

// Policy is what one key should look like, when it rotates, and where it is published.
// It is a value that config has validated; rotator never changes it.
type Policy struct {
	Name           string // a-z 0-9 -, at most 36 characters
	Workspace      string
	ServiceAccount string // service_account_user_id
	Schedule       schedule.Schedule
	Splay          time.Duration // a run starts 0..Splay later, fixed per policy name
	Window         time.Duration // 0: a late run is always caught up
	Group          string        // "": none
	MaxAge         time.Duration // 0: no limit
	Settings       elevenlabs.Settings
	Overlap        time.Duration // both keys work
	Quarantine     time.Duration // the old key is disabled, not deleted
	WaitUntilIdle  time.Duration // the overlap is extended by at most this while the old key is in use
	WaitUntilUsed  time.Duration // … until the new key is
	Verify         bool
	Probes         []string // paths that the new key must get 2xx for
	OnDrift        OnDrift
	Mode           Mode
	Adopt          string // id of an existing key to adopt as current; "": none
	Sink           ledger.Sink
	AdminOf        string            // the workspace that reads its admin key where the sink is; "": none
	Labels         map[string]string // for people and metrics; nothing is decided by them
}

// LongestWait is by how much the policy lets an overlap be extended.
func (p Policy) LongestWait() time.Duration { return max(p.WaitUntilIdle, p.WaitUntilUsed) }

// RemovedPolicy is what the ledger still knows of a policy.
func RemovedPolicy(e *ledger.Entry) Policy {
	p := Policy{Name: e.Policy, Mode: ModeRemoved}
	ref := e.Current
	if ref == nil && len(e.Retiring) > 0 {
		ref = &e.Retiring[0].KeyRef
	}
	if ref != nil {
		p.Workspace, p.ServiceAccount, p.Sink, p.Verify = ref.Workspace, ref.Account, ref.Sink, ref.Verified
	}
	switch in := e.Intent; {
	case ref != nil:
	case in != nil: // its first rotation is still to be settled, and a policy of another name may wait for that
		p.Workspace, p.ServiceAccount, p.Sink, p.Verify = in.Workspace, in.Account, in.Sink, in.Verify
	case len(e.Abandoned) > 0: // the sweep is all that is left to do
		p.Workspace, p.ServiceAccount = e.Abandoned[0].Workspace, e.Abandoned[0].Account
	}
	if p.Quarantine = time.Duration(e.Quarantine); p.Quarantine == 0 {
		p.Quarantine = defaultQuarantine // an adopted key that was never rotated
	}
	return p
}

// defaultQuarantine is that of a removed policy of which the ledger remembers none.
const defaultQuarantine = 24 * time.Hour
