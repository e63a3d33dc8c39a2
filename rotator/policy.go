package rotator

import (
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// Ref names one document in a [Store]: a mount and a path below it, both without leading or trailing slash.
type Ref struct {
	Mount string `json:"mount"`
	Path  string `json:"path"`
}

// String returns mount/path, as a person would type it.
func (r Ref) String() string { return r.Mount + "/" + r.Path }

// Join returns the document name below r.
func (r Ref) Join(name string) Ref { return Ref{r.Mount, r.Path + "/" + name} }

// Sink is where a policy's secret is published: a record and the field of it that holds the secret.
type Sink struct {
	Ref
	Field string `json:"field"`
}

// Mode says how much of a policy's work is done without being asked.
type Mode string

// The modes of a policy.
const (
	ModeAuto   Mode = "auto"   // everything
	ModeManual Mode = "manual" // no scheduled runs, no rotation for drift; all else as ever
	ModePaused Mode = "paused" // observes, writes nothing

	// modeRemoved is that of a policy which is no longer loaded: its retiring keys finish their way, its current key stays.
	modeRemoved Mode = "removed"
)

// OnDrift says what is done about settings of the current key that differ from the policy.
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
	Schedule       Schedule
	Splay          time.Duration // a run starts 0..Splay later, fixed per policy name
	Window         time.Duration // 0: a late run is caught up whenever
	Group          string        // "": none
	MaxAge         time.Duration // 0: no promise
	Settings       elevenlabs.Settings
	Overlap        time.Duration // both keys work
	Quarantine     time.Duration // the old key is disabled, not deleted
	WaitUntilIdle  time.Duration // the overlap is prolonged by at most this
	Verify         bool
	OnDrift        OnDrift
	Mode           Mode
	Adopt          string // id of an existing key to take over as current; "": none
	Sink           Sink
	AdminOf        string // the workspace that reads its admin key where the sink is; "": none
}
