package ledger

import "github.com/rekeyd/rekeyd/elevenlabs"

// Settings are the optional settings that a key is created with. What it is created without is not in it.
type Settings struct {
	TTSConcurrency     *int64 `json:"tts_concurrency_limit,omitempty"`
	DubbingConcurrency *int64 `json:"dubbing_concurrency_limit,omitempty"`
	MusicConcurrency   *int64 `json:"music_concurrency_limit,omitempty"`
	ThirdPartyDisable  *bool  `json:"third_party_disable_allowed,omitempty"`
}

// SettingsOf returns the settings that have a value, nil if none has.
func SettingsOf(o elevenlabs.Optional) *Settings {
	s := Settings{pointerTo(o.TTSConcurrency), pointerTo(o.DubbingConcurrency), pointerTo(o.MusicConcurrency), pointerTo(o.ThirdPartyDisable)}
	if s == (Settings{}) {
		return nil
	}
	return &s
}

func pointerTo[T comparable](v elevenlabs.Value[T]) *T {
	if !v.Has() {
		return nil
	}
	return &v.Value
}

// Optional returns the settings as the client has them; of those that have no value, nothing is known. s may be nil.
func (s *Settings) Optional() (o elevenlabs.Optional) {
	if s == nil {
		return o
	}
	return elevenlabs.Optional{TTSConcurrency: valueAt(s.TTSConcurrency), DubbingConcurrency: valueAt(s.DubbingConcurrency),
		MusicConcurrency: valueAt(s.MusicConcurrency), ThirdPartyDisable: valueAt(s.ThirdPartyDisable)}
}

func valueAt[T comparable](p *T) (v elevenlabs.Value[T]) {
	if p != nil {
		v = elevenlabs.Some(*p)
	}
	return v
}
