package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestUnreadable has what a table of text cannot hold.
func TestUnreadable(t *testing.T) {
	cases := map[string]struct{ text, want string }{
		"NUL":            {"policies:\n- name: a\x00", "REKEYD_POLICIES:2:1: the control character U+0000 is not allowed in YAML; remove it"},
		"escape":         {"\x1b[31mpolicies: []", "REKEYD_POLICIES:1:1: the control character U+001B is not allowed in YAML; remove it"},
		"Latin-1":        {"# ok\n# caf\xe9\n", "REKEYD_POLICIES:2:1: byte 0xe9 is not UTF-8; save the policy file as UTF-8"},
		"UTF-16":         {"\xff\xfep\x00", "REKEYD_POLICIES:1:1: byte 0xff is not UTF-8; save the policy file as UTF-8"},
		"BOM":            {"\xef\xbb\xbfpolicies: []", "REKEYD_POLICIES:1:1: the policy file starts with a byte order mark; save it as UTF-8 without one"},
		"10 MB":          {strings.Repeat("# 0123456\n", 1_000_000), "REKEYD_POLICIES: the policy file is larger than 8 MiB; split it between several instances of rekeyd"},
		"deep flow":      {strings.Repeat("[", 1_000_000), "REKEYD_POLICIES: not valid YAML: exceeded max depth of 10000; nest lists and mappings less deeply"},
		"deep blocks":    {strings.Repeat("- ", 1_000_000), "REKEYD_POLICIES: not valid YAML: exceeded max depth of 10000; nest lists and mappings less deeply"},
		"deep but legal": {strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000), "REKEYD_POLICIES:1:1: the policy file is a list, not a mapping; write one such as {policies: [{name: …}]}"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, c.text); err == nil || err.Error() != c.want {
				t.Errorf("got  %.300v\nwant %s", err, c.want)
			}
		})
	}
}

// TestLargeInputs keeps what 8 MiB of anything can cost within bounds: under the race detector a share of both.
func TestLargeInputs(t *testing.T) {
	const size = maxSize / share
	fill := func(head, unit string) string { return head + strings.Repeat(unit, (size-len(head))/len(unit)) }
	cases := map[string]string{
		"empty flow entries": fill("policies: [", "a,"),
		"unknown fields":     fill("", "a: 1\n"),
		"addresses":          fill("policies:\n- {name: a, service_account: s, sink: {path: a}, schedule: '@daily', permissions: all, allowed_ips: [", "10.0.0.1/8,") + "]}",
		"policies":           fill("policies:\n", "- {}\n"),
		"anchors":            fill("policies:\n", "- &a a\n- *a\n"),
		"merges":             fill("policies:\n- &a {name: a, schedule: x, overlap: 1h}\n", "- {<<: *a}\n"),
		"aliases of a list":  fill("defaults: {permissions: &a [flows, flows, flows, flows]}\npolicies:\n", "- *a\n"),
		"profiles":           fill("policies: []\nprofiles:\n", "  a: {}\n"),
		"one long line":      fill("policies: ", "x"),
		"colons":             fill("", ": "),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := load(t, text[:min(len(text), size)])
			runtime.ReadMemStats(&after)
			if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 1500/share {
				t.Errorf("%d MiB were allocated", allocated)
			}
			if err == nil {
				t.Error("accepted")
			}
			if err != nil && len(err.Error()) > 1<<20 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestPolicyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	lookup := least(map[string]string{"REKEYD_POLICY_FILE": path, "REKEYD_SINK": "file"})
	env, err := LoadEnv(lookup)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LoadPolicies(t.Context(), env.Source(), env, lookup)
	if want := path + ": the policy file cannot be read: no such file or directory; correct REKEYD_POLICY_FILE or the file's permissions"; err == nil || err.Error() != want {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("policies:\n- nam: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = LoadPolicies(t.Context(), env.Source(), env, lookup); err == nil || !strings.HasPrefix(err.Error(), path+":2:3: policy number 1 has no field \"nam\"; did you mean name?\n") {
		t.Errorf("bad file: %v", err)
	}
	if _, err = LoadPolicies(t.Context(), Source{Path: filepath.Dir(path)}, env, lookup); err == nil || !strings.Contains(err.Error(), "cannot be read: it is a folder, not a regular file") {
		t.Errorf("folder: %v", err)
	}
	if err := os.WriteFile(path, []byte(many(3)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadPolicies(t.Context(), env.Source(), env, lookup)
	if err != nil || len(c.Policies) != 3 || len(c.Digest) != 64 {
		t.Errorf("good file: %v", err)
	}
}

// FuzzPolicies looks for a text that makes the loader panic, hang, or load what the rotator must not see.
func FuzzPolicies(f *testing.F) {
	f.Add(complete)
	f.Add(many(2))
	for _, r := range readRefusals(f) {
		f.Add(r.text())
	}
	lookup := environment("x")
	env, err := LoadEnv(lookup)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := LoadPolicies(t.Context(), Source{Text: text}, env, lookup)
		if err != nil {
			return
		}
		names := map[string]bool{}
		for _, p := range c.Policies {
			if p.Name == "" || names[p.Name] || p.ServiceAccount == "" || p.Sink.Path == "" || p.Sink.Mount == "" || p.Sink.Field == "" {
				t.Errorf("an incomplete or doubled policy was loaded: %+v", p)
			}
			names[p.Name] = true
			shortest, longest := p.Schedule.Gaps()
			if shortest < env.MinInterval || p.Overlap < 0 || p.Overlap >= shortest || p.Splay >= shortest || p.MaxAge != 0 && p.MaxAge < longest {
				t.Errorf("a policy with impossible durations was loaded: %+v", p)
			}
			if !p.Settings.Permissions.All && len(p.Settings.Permissions.Names) == 0 {
				t.Errorf("a policy without permissions was loaded: %+v", p)
			}
		}
	})
}
