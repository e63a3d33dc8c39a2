package main

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

// TestABundleOfABrokenConfiguration: it is for those who cannot start rekeyd, too. The real binary has TestABundle.
func TestABundleOfABrokenConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tty = true
	if status, stdout, stderr := w.run("debug", "bundle"); status != 2 || stdout != "" || !strings.Contains(stderr, "-o FILE") {
		t.Errorf("on a terminal: exit status %d\n%s%s", status, stdout, stderr)
	}
	w.tty = false
	w.env["REKEYD_POLICIES"] = "policies:\n  - {name: tts-prod}\n"
	zipped, err := gzip.NewReader(strings.NewReader(w.must(0, "debug", "bundle")))
	if err != nil {
		t.Fatal(err)
	}
	files, tarred := map[string]string{}, tar.NewReader(zipped)
	for {
		header, err := tarred.Next()
		if err != nil {
			break
		}
		text, err := io.ReadAll(tarred)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(text)
	}
	if readme := files["rekeyd-bundle/README.txt"]; len(files) != 4 || strings.Count(readme, "LEFT OUT") != 4 || !strings.Contains(readme, "service_account is missing") {
		t.Errorf("%d files:\n%s", len(files), readme)
	}
	if got := w.must(0, "__complete", "debug", ""); !strings.HasPrefix(got, "bundle\t") {
		t.Errorf("debug is completed by %s", got)
	}
	if got := w.must(0, "__complete", "debug", "bundle", "-o", ""); got != ":0\n" {
		t.Errorf("-o is completed by %s, not by files", got)
	}
	w.must(2, "debug")
	w.must(2, "debug", "bundel")
	w.must(2, "debug", "bundle", "tts-prod")
}
