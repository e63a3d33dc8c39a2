package rotator

import (
	"context"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
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
	begun    time.Time                   // monotonic, before the request
	answer   []elevenlabs.ServiceAccount // without our later changes
	changed  bool                        // by us, since
	accounts map[string][]elevenlabs.Key
	owned    map[string][]elevenlabs.Key // by the policy in the key's name
	strays   bool                        // owned has keys of policies that are not in this workspace
}
