package plan

import (
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// NewSettings returns the optional settings of the key that replaces the current one: the policy's, and the current key's where
// the policy manages none. unknown names those that a listed current key does not show.
func NewSettings(p Policy, o Observed) (settings elevenlabs.Optional, unknown []string) {
	settings = p.Settings.Or(CurrentSettings(o))
	if _, listed := o.Key(ledger.CurrentID(o.Entry)); listed {
		unknown = settings.Unknown()
	}
	return settings, unknown
}

// CurrentSettings returns the optional settings of the current key, if there is one, as far as they are known: as listed, or, of
// a key that is not listed, as it was created.
func CurrentSettings(o Observed) elevenlabs.Optional {
	if o.Entry == nil || o.Entry.Current == nil {
		return elevenlabs.Optional{}
	}
	if k, listed := o.Key(o.Entry.Current.ID); listed {
		return k.Settings.Optional
	}
	return o.Entry.Current.Settings.Optional()
}
