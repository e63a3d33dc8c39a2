package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// edit is what another policy file says differently of one policy or workspace.
type edit struct {
	Effect    effect        `json:"effect"`
	Policy    string        `json:"policy,omitempty"`
	Workspace string        `json:"workspace,omitempty"`
	Fields    []fieldChange `json:"fields,omitempty"` // of one that is in both files
}

type fieldChange struct {
	Field string `json:"field"`
	From  string `json:"from"` // "": absent
	To    string `json:"to"`
}

// editsOf compares two policy files, in the order of the new one, with what it lacks at the end.
func editsOf(old, next *config.Config) []edit {
	edits := []edit{}
	for _, e := range compare(old.Workspaces, next.Workspaces, func(w config.Workspace) string { return w.Name }, workspaceFields) {
		edits = append(edits, edit{Effect: e.Effect, Workspace: e.Policy, Fields: e.Fields})
	}
	return append(edits, compare(old.Policies, next.Policies, func(p plan.Policy) string { return p.Name }, policyFields)...)
}

func compare[T any](old, next []T, name func(T) string, fields func(T) [][2]string) []edit {
	was := map[string]T{}
	for _, t := range old {
		was[name(t)] = t
	}
	var edits []edit
	for _, t := range next {
		before, there := was[name(t)]
		delete(was, name(t))
		if !there {
			edits = append(edits, edit{Effect: effectCreate, Policy: name(t)})
		} else if changed := changedFields(fields(before), fields(t)); len(changed) > 0 {
			edits = append(edits, edit{Effect: effectChange, Policy: name(t), Fields: changed})
		}
	}
	for _, gone := range slices.Sorted(maps.Keys(was)) {
		edits = append(edits, edit{Effect: effectDelete, Policy: gone})
	}
	return edits
}

func changedFields(from, to [][2]string) []fieldChange {
	var changed []fieldChange
	for i := range to {
		if from[i][1] != to[i][1] {
			changed = append(changed, fieldChange{to[i][0], from[i][1], to[i][1]})
		}
	}
	return changed
}

// workspaceFields shows where the admin key is, but not in which variable or file.
func workspaceFields(w config.Workspace) [][2]string {
	key := "a variable or file"
	if w.APIKey.Vault != nil {
		key = w.APIKey.Vault.String()
	}
	return [][2]string{{"base_url", w.BaseURL}, {"api_key", key}}
}

// policyFields are the fields of a policy in the order of docs/policy-file.md, as a person writes them.
func policyFields(p plan.Policy) [][2]string {
	verify := "off"
	if p.Verify {
		verify = "auto"
	}
	limit, ips, probes, labels := "", "", "", ""
	if p.Settings.CharacterLimit != nil {
		limit = fmt.Sprint(*p.Settings.CharacterLimit)
	}
	if len(p.Settings.AllowedIPs) > 0 {
		ips = fmt.Sprint(p.Settings.AllowedIPs)
	}
	if len(p.Probes) > 0 {
		probes = fmt.Sprint(p.Probes)
	}
	if len(p.Labels) > 0 {
		labels = strings.TrimPrefix(fmt.Sprint(p.Labels), "map")
	}
	o := p.Settings.Optional
	return [][2]string{
		{"service_account", p.ServiceAccount}, {"sink", p.Sink.String()}, {"sink.field", p.Sink.Field}, {"workspace", p.Workspace},
		{"schedule", p.Schedule.String()}, {"timezone", p.Schedule.Zone()}, {"splay", config.FormatDuration(p.Splay)}, {"window", config.FormatDuration(p.Window)},
		{"group", p.Group}, {"max_age", config.FormatDuration(p.MaxAge)}, {"permissions", p.Settings.Words("permissions")}, {"allowed_ips", ips}, {"character_limit", limit},
		{"tts_concurrency_limit", o.TTSConcurrency.String()}, {"dubbing_concurrency_limit", o.DubbingConcurrency.String()},
		{"music_concurrency_limit", o.MusicConcurrency.String()}, {"third_party_disable_allowed", o.ThirdPartyDisable.String()},
		{"overlap", config.FormatDuration(p.Overlap)}, {"quarantine", config.FormatDuration(p.Quarantine)}, {"wait_until_idle", config.FormatDuration(p.WaitUntilIdle)},
		{"wait_until_used", config.FormatDuration(p.WaitUntilUsed)}, {"verify", verify}, {"probes", probes}, {"on_drift", string(p.OnDrift)},
		{"mode", string(p.Mode)}, {"labels", labels}, {"adopt", p.Adopt},
	}
}

func shownValue(text string) string {
	switch {
	case text == "":
		return "(absent)"
	case strings.Contains(text, " ") && text[0] != '[':
		return strconv.Quote(text)
	}
	return text
}

func editsText(edits []edit, paint painter) string {
	var out strings.Builder
	for _, e := range edits {
		line := "policy " + e.Policy
		if e.Workspace != "" {
			line = "workspace " + e.Workspace
		}
		var fields []string
		for _, f := range e.Fields {
			fields = append(fields, f.Field+" "+shownValue(f.From)+" becomes "+shownValue(f.To))
		}
		if len(fields) > 0 {
			line += ": " + strings.Join(fields, "; ")
		}
		fmt.Fprintf(&out, "  %s %s\n", e.Effect.mark(paint), line)
	}
	return out.String()
}
