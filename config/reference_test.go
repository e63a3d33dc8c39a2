package config

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestReference holds the pages about the environment and the policy file against the fields.
func TestReference(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"environment.md": environmentPage(), "policy-file.md": policyFilePage()} {
		path := "../docs/" + name
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != want {
			t.Errorf("docs/%s is not what the fields say (%v); write it with: go test ./config -run Reference -args -update", name, err)
		}
	}
}

const environmentHead = `# Environment

These variables say everything about the process; ` + "`rekeyd help env`" + ` prints them. A secret can also come from the file that its
variable with ` + "`_FILE`" + ` names; it is read again when it changes. Where a variable of Vault is not set, OpenBao's name for it
[counts](vault.md#openbao). ` + "`rekeyd check`" + ` reports every fault at once, with exit status 2.

| variable | default | meaning |
|---|---|---|
`

func environmentPage() string {
	var b strings.Builder
	b.WriteString(environmentHead)
	for _, v := range variables() {
		names, fallback, help := v.described()
		if fallback != "" && v.usual == "" {
			fallback = mono(fallback)
		}
		row(&b, mono(strings.ReplaceAll(names, ", ", "`, `")), fallback, help)
	}
	return b.String()
}

const policyFileHead = `# Policy file

YAML, at the path in ` + "`REKEYD_POLICY_FILE`" + `. [policies.yaml](../deploy/policies.yaml) is an example,
[policies.schema.json](../deploy/policies.schema.json) the JSON Schema for editors. ` + "`rekeyd check`" + ` tells every fault; unknown and
repeated fields are faults. Durations are written like ` + "`90m`, `36h` or `1h30m`" + `.

The file is read again when it changes, at SIGHUP, and at ` + "`POST /-/reload`" + `. A faulty one changes nothing: a metric and the log say so.
`

func policyFilePage() string {
	var b strings.Builder
	b.WriteString(policyFileHead)
	g := newGrammar()
	for _, part := range []struct {
		title, said string
		typ         reflect.Type
	}{
		{"The file", "", reflect.TypeFor[document]()},
		{"policies", "Each entry. `workspace` and what follows it can be in `defaults` instead, and all of that but `profile` in a profile.", reflect.TypeFor[policy]()},
		{"sink", "", reflect.TypeFor[sink]()},
		{"workspaces", "Each entry.", reflect.TypeFor[workspace]()},
		{"api_key", "Exactly one of", reflect.TypeFor[apiKey]()},
		{"vault", "", reflect.TypeFor[vaultField]()},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n", part.title)
		if part.said != "" {
			b.WriteString(part.said + "\n\n")
		}
		b.WriteString("| field | default | example | meaning |\n|---|---|---|---|\n")
		for _, f := range g[part.typ] {
			row(&b, mono(f.name), f.usual(), mono(f.example), f.meaning())
		}
	}
	fmt.Fprintf(&b, strings.ReplaceAll(policyFileTail, "~~~", "```"), profilesExample, anchorsExample)
	return b.String()
}

const policyFileTail = `
## Profiles and labels

A field that the policy does not set has the value of its profile, else that of defaults:

~~~yaml
%s~~~

` + "`tts-prod`" + ` rotates weekly, with an overlap of 12h and the labels ` + "`team=voice` and `stage=prod`. `profile` in `defaults`" + ` is for the
policies that name none. Labels are merged by name, and an empty value removes one; every other field is replaced as a whole, lists too.
` + "`--label stage=prod`" + ` chooses policies on the command line; Prometheus has labels on ` + "`rekeyd_policy_info`" + `:

~~~promql
rekeyd_policy_state{state="error"} * on (policy, job, instance) group_left (label_team) rekeyd_policy_info
~~~

## Anchors, aliases and merge keys

~~~yaml
%s~~~

A mapping's own fields win over those that ` + "`<<`" + ` brings, and in a list of several the first wins. A merge replaces whole fields, labels
too. Tags are refused, and aliases that stand for more than 200,000 values together.
`

const profilesExample = `defaults: {schedule: "0 3 * * 1", permissions: [text_to_speech], labels: {team: voice}}
profiles:
  prod: {overlap: 12h, labels: {stage: prod}}
policies:
  - {name: tts-prod, profile: prod, service_account: svcacc_9f8b7c6d5e4a3b2c1d0e, sink: {path: elevenlabs/tts-prod}}
`

const anchorsExample = `policies:
  - &tts
    name: tts-prod
    service_account: svcacc_9f8b7c6d5e4a3b2c1d0e
    schedule: "0 3 * * 1"
    permissions: &speech [text_to_speech, voices_read]
    sink: {path: elevenlabs/tts-prod}
  - <<: *tts
    name: tts-batch
    sink: {path: elevenlabs/tts-batch}
  - name: reader
    service_account: svcacc_1a2b3c4d5e6f7a8b9c0d
    schedule: "@daily"
    permissions: *speech
    sink: {path: elevenlabs/reader}
`

// TestTheExamplesOfThePage: they mean what the page says.
func TestTheExamplesOfThePage(t *testing.T) {
	p := only(t, profilesExample)
	if p.Schedule.String() != "0 3 * * 1" || FormatDuration(p.Overlap) != "12h" || fmt.Sprint(p.Labels) != "map[stage:prod team:voice]" {
		t.Errorf("profiles: %+v", p)
	}
	c, err := load(t, anchorsExample)
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Policies[1]; b.Name != "tts-batch" || b.Sink.Path != "elevenlabs/tts-batch" || b.ServiceAccount != c.Policies[0].ServiceAccount || len(c.Policies[2].Settings.Permissions.Names) != 2 {
		t.Errorf("anchors: %+v", c.Policies)
	}
}

// usual is what holds where the field is absent.
func (f field) usual() string {
	switch {
	case f.need || f.requiredUnlessDefault:
		return "required"
	case f.fallback != "":
		return mono(f.fallback)
	}
	return ""
}

func (f field) meaning() string {
	text := f.doc
	if f.words != nil {
		text += " One of " + mono(strings.Join(f.words, "`, `")) + "."
	} else if strings.Contains(f.rule, " of ") && strings.ContainsAny(f.rule, "0123456789") { // others say what the meaning says
		length, set, _ := strings.Cut(f.rule, " of ")
		text += " (" + length + " of " + mono(strings.ReplaceAll(set, " ", "")) + ")"
	}
	return text
}

func mono(text string) string { return "`" + text + "`" }

func row(b *strings.Builder, cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(cell, "|", "\\|")
	}
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}
