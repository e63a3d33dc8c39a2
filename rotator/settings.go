package rotator

import (
	"errors"
	"fmt"
	"slices"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// newSettings decides which optional settings the new key gets. It says once for each workspace that a listing does not show what
// should be carried over: an older API.
func (j *job) newSettings() *ledger.Settings {
	settings, unknown := plan.NewSettings(j.p, j.observed())
	_, ws := j.r.policyOf(j.st)
	j.r.mu.Lock()
	said := ws.settingsUnknown
	ws.settingsUnknown = said || len(unknown) > 0
	j.r.mu.Unlock()
	if len(unknown) > 0 && !said {
		j.log.Warn("listing does not show these settings of the replaced key, so they are not carried over", "workspace", ws.name, "settings", unknown)
	}
	return ledger.SettingsOf(settings)
}

// settings returns what the intent's key is created with.
func (j *job) settings(in *ledger.Intent) elevenlabs.Settings {
	s := j.p.Settings
	s.Optional = in.Settings.Optional()
	return s
}

// assumed returns the settings of a new key that the listing does not show yet: those it was created with. But where the replaced
// key lacks some of the policy's although it was made for them, a new one is taken to lack them too. Else a plan that drops a
// setting and a listing that lags would make the policy rotate for drift without end.
func (j *job) assumed(in *ledger.Intent) elevenlabs.Settings {
	a, replaced := j.entry().Applied, j.listedKey(ledger.CurrentID(j.entry()))
	ignored := a != nil && a.Digest == j.p.Settings.Digest() && len(a.Ignored) > 0
	if replaced.ID != "" && (ignored || in.Reason == ledger.TriggerDrift) {
		return replaced.Settings
	}
	return j.settings(in)
}

// noteDropped logs the carried settings that ElevenLabs accepted and did not take over. Those that the policy manages are drift.
func (j *job) noteDropped(in *ledger.Intent, listed elevenlabs.Key) {
	dropped := listed.Settings.Diff(j.settings(in))
	dropped = slices.DeleteFunc(dropped, func(field string) bool {
		return in.Settings.Optional().Text(field) == "" || j.p.Settings.Text(field) != ""
	})
	if len(dropped) > 0 {
		j.log.Warn("settings of the replaced key were not taken over by the new one", "key_id", listed.ID, "settings", dropped)
	}
}

// refusedSetting says of a refused create or update which setting it was, whose, and what to do.
func (j *job) refusedSetting(err error, wanted elevenlabs.Optional) error {
	e := (*elevenlabs.Error)(nil)
	if !errors.Is(err, elevenlabs.ErrSettingRefused) || !errors.As(err, &e) {
		return err
	}
	field := e.Setting()
	if value := wanted.Text(field); value == "" || value == elevenlabs.NoneWord {
		return err
	}
	whose, instead := "which the key to replace has", elevenlabs.NoneWord+", or to what the plan of the workspace offers"
	if j.p.Settings.Text(field) != "" {
		whose = "which the policy asks for"
	}
	if field == elevenlabs.FieldThirdPartyDisable {
		instead = "what the plan of the workspace offers"
	}
	return fmt.Errorf("ElevenLabs refuses %s %s, %s; set it in policy %s to %s: %w", field, wanted.Text(field), whose, j.p.Name, instead, err)
}

// changes says of each setting that differs what it is and what it becomes.
func changes(from, to elevenlabs.Settings) []string {
	var all []string
	for _, field := range from.Diff(to) {
		all = append(all, fmt.Sprintf("%s: %s to %s", field, from.Words(field), to.Words(field)))
	}
	return all
}
