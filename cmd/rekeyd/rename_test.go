package main

import (
	"strings"
	"testing"
)

func TestRenameSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod", "dubbing")
	w.env["REKEYD_POLICIES"] = strings.ReplaceAll(twoPolicies, "tts-prod", "speech")
	w.must(0, "rename", "tts-prod", "speech")
	w.must(0, "rotate", "speech")
	w.env["REKEYD_POLICIES"] = twoPolicies // git revert
	w.must(0, "status", "tts-prod")
	w.must(1, "rotate", "tts-prod")
	w.must(0, "rename", "speech", "tts-prod", "--json")
	w.must(0, "rotate", "tts-prod")
	w.must(0, "rename", "speech", "tts-prod")
	w.must(1, "rename", "speech", "dubbing")
	w.must(1, "rename", "nobody", "dubbing")
	w.must(1, "rename", "dubbing", "tts-prod")
	w.must(2, "rename", "dubbing", "nobody")
	w.must(2, "rename", "speech")
	w.must(2, "rename", "a", "b", "c")
	w.golden("rename")
}
