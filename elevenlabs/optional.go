package elevenlabs

import (
	"encoding/json"
	"fmt"
)

// NoneWord is how a policy file, and a text for people, says that a limit is cleared.
const NoneWord = "none"

// The names of the optional settings, in the API and in policy files.
const (
	FieldTTSConcurrency     = "tts_concurrency_limit"
	FieldDubbingConcurrency = "dubbing_concurrency_limit"
	FieldMusicConcurrency   = "music_concurrency_limit"
	FieldThirdPartyDisable  = "third_party_disable_allowed"
)

// Value is one optional setting. Its zero value says nothing: a policy does not manage the setting, or a listing does not show
// it.
type Value[T comparable] struct {
	Known bool
	None  bool // known to have no value: no limit, or ElevenLabs' default
	Value T
}

// Some is a setting with a value.
func Some[T comparable](v T) Value[T] { return Value[T]{Known: true, Value: v} }

// None is a setting without a value.
func None[T comparable]() Value[T] { return Value[T]{Known: true, None: true} }

// Has reports whether the setting is known to have a value.
func (v Value[T]) Has() bool { return v.Known && !v.None }

// String is the value, "none", or "" where nothing is known.
func (v Value[T]) String() string {
	switch {
	case !v.Known:
		return ""
	case v.None:
		return NoneWord
	}
	return fmt.Sprint(v.Value)
}

// or is v, or other where v says nothing.
func (v Value[T]) or(other Value[T]) Value[T] {
	if v.Known {
		return v
	}
	return other
}

// field is the value for a request's body: nil leaves the field out.
func (v Value[T]) field(none any) any {
	switch {
	case v.Has():
		return v.Value
	case v.Known:
		return none
	}
	return nil
}

// differs reports whether v, as listed, differs from what is wanted. A listing that does not show a setting shows no value.
func (v Value[T]) differs(want Value[T]) bool {
	return want.Known && (v.Has() != want.Has() || v.Value != want.Value)
}

// Optional are the settings that a policy need not manage.
type Optional struct {
	TTSConcurrency     Value[int64]
	DubbingConcurrency Value[int64]
	MusicConcurrency   Value[int64]
	// ThirdPartyDisable is whether ElevenLabs, or who holds the key, may disable it.
	ThirdPartyDisable Value[bool]
}

// Or returns o, with the settings of other where o says nothing.
func (o Optional) Or(other Optional) Optional {
	return Optional{o.TTSConcurrency.or(other.TTSConcurrency), o.DubbingConcurrency.or(other.DubbingConcurrency),
		o.MusicConcurrency.or(other.MusicConcurrency), o.ThirdPartyDisable.or(other.ThirdPartyDisable)}
}

// Texts returns each setting's name and its value in words, "" where o says nothing, in a fixed order.
func (o Optional) Texts() [4][2]string {
	return [4][2]string{{FieldTTSConcurrency, o.TTSConcurrency.String()}, {FieldDubbingConcurrency, o.DubbingConcurrency.String()},
		{FieldMusicConcurrency, o.MusicConcurrency.String()}, {FieldThirdPartyDisable, o.ThirdPartyDisable.String()}}
}

// Text returns the value of the named setting in words, "" where o says nothing.
func (o Optional) Text(field string) string {
	for _, f := range o.Texts() {
		if f[0] == field {
			return f[1]
		}
	}
	return ""
}

// Unknown names the settings of which o says nothing.
func (o Optional) Unknown() (fields []string) {
	for _, f := range o.Texts() {
		if f[1] == "" {
			fields = append(fields, f[0])
		}
	}
	return fields
}

// differences names the settings of want that o, as listed, does not have.
func (o Optional) differences(want Optional) (fields []string) {
	for i, differs := range [4]bool{o.TTSConcurrency.differs(want.TTSConcurrency), o.DubbingConcurrency.differs(want.DubbingConcurrency),
		o.MusicConcurrency.differs(want.MusicConcurrency), o.ThirdPartyDisable.differs(want.ThirdPartyDisable)} {
		if differs {
			fields = append(fields, o.Texts()[i][0])
		}
	}
	return fields
}

// optionalFields are the optional settings in the body of a create or an update.
type optionalFields struct {
	TTSConcurrency     any `json:"tts_concurrency_limit,omitempty"`
	DubbingConcurrency any `json:"dubbing_concurrency_limit,omitempty"`
	MusicConcurrency   any `json:"music_concurrency_limit,omitempty"`
	ThirdPartyDisable  any `json:"third_party_disable_allowed,omitempty"`
}

// bodyFields writes none for a known lack of a value, and leaves out what o does not say.
func (o Optional) bodyFields(none any) optionalFields {
	return optionalFields{o.TTSConcurrency.field(none), o.DubbingConcurrency.field(none), o.MusicConcurrency.field(none), o.ThirdPartyDisable.field(none)}
}

// UnmarshalJSON reads a member of a listing: null is None. What the listing lacks is not read, and so stays unknown.
func (v *Value[T]) UnmarshalJSON(text []byte) error {
	if string(text) == "null" { // the usual one
		*v = None[T]()
		return nil
	}
	*v = Value[T]{Known: true}
	return json.Unmarshal(text, &v.Value)
}

// wireOptional are the optional settings of a listed key. An older API has neither field. Assumptions A10 and A11: null is a setting
// that the key does not have, whatever its plan has.
type wireOptional struct {
	ThirdPartyDisable Value[bool]       `json:"third_party_disable_allowed"`
	Limits            Value[wireLimits] `json:"platform_limits"`
}

type wireLimits struct {
	TTS     Value[wireLimit] `json:"concurrency"`
	Dubbing Value[wireLimit] `json:"dubbing_concurrency"`
	Music   Value[wireLimit] `json:"music_concurrency"`
}

type wireLimit struct {
	Limit Value[int64] `json:"limit"`
}

func (w wireOptional) optional() Optional {
	of := func(limit Value[wireLimit]) Value[int64] {
		if w.Limits.None || limit.None {
			return None[int64]()
		}
		return limit.Value.Limit
	}
	l := w.Limits.Value
	return Optional{of(l.TTS), of(l.Dubbing), of(l.Music), w.ThirdPartyDisable}
}
