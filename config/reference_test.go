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

Everything about the process comes from these variables; this page is made from the code. ` + "`rekeyd help env`" + ` prints the same.
A secret can also come from the file that its variable with ` + "`_FILE`" + ` names; it is read again when it changes. Where a variable
of Vault is not set, OpenBao's name for it counts ([openbao.md](openbao.md)).

What is missing, cannot be read or does not fit together is reported all at once by ` + "`rekeyd check`" + `, with exit status 2.

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

YAML, at the path in ` + "`REKEYD_POLICY_FILE`" + `; this page is made from the code. [policies.yaml](../deploy/policies.yaml) is an example,
[policies.schema.json](../deploy/policies.schema.json) the JSON Schema for editors. ` + "`rekeyd check`" + ` tells every fault, also those between
fields; unknown and repeated fields are faults.

The file is read again when it changes, at SIGHUP, and at ` + "`POST /-/reload`" + `. A faulty one changes nothing: a metric and the log say so.
Durations are written like ` + "`90m`, `36h` or `1h30m`" + `.
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
		{"policies", "Each entry. `workspace` and what follows it can be in `defaults` instead.", reflect.TypeFor[policy]()},
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
	return b.String()
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
		text += " (" + f.rule + ")"
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
