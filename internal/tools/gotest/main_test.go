package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// suite is a module with a test of each kind.
var suite = map[string]string{
	"go.mod":              "module example.test/suite\n\ngo 1.26.0\n",
	"good/good_test.go":   "package good\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"said by a test that passes\") }\n",
	"bad/bad_test.go":     "package bad\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"always\") }) }\n\nfunc TestOther(t *testing.T) {}\n",
	"panic/p_test.go":     "package p\n\nimport \"testing\"\n\nfunc TestPanic(t *testing.T) { panic(\"at the disco\") }\n",
	"build/build_test.go": "package build\n\nimport \"testing\"\n\nfunc TestBuild(t *testing.T) { undefined() }\n",
	"late/late_test.go":   "package late\n\nimport \"testing\"\n\nfunc TestLate(t *testing.T) { select {} }\n",
	"flaky/flaky_test.go": `package flaky

import (
	"os"
	"testing"
)

// It fails as long as its marker is not there.
func fail(t *testing.T, marker string) {
	if _, err := os.Stat(marker); err != nil {
		_ = os.WriteFile(marker, nil, 0o600)
		t.Error("the machine was busy")
	}
}

func TestA(t *testing.T) { fail(t, "a") }
func TestB(t *testing.T) { fail(t, "b") }
func TestC(t *testing.T) { fail(t, "c") }
func TestD(t *testing.T) { fail(t, "d") }
`,
}

func write(t *testing.T) (report string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range suite {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "")
	return filepath.Join(dir, "report")
}

func TestWhatFailsIsNamed(t *testing.T) {
	report := write(t)
	var out strings.Builder
	if status := run(t.Context(), []string{"-flaky=" + report, "-shuffle=on", "-timeout=5s", "./good", "./bad", "./panic", "./build", "./late"}, &out); status != 1 {
		t.Errorf("the status is %d", status)
	}
	for _, want := range []string{
		"ok  \texample.test/suite/good", "always", "at the disco", "undefined: undefined",
		"gotest: FAILED: ./bad TestBad\n  go test -count=1 -timeout=5s '-run=^TestBad$' ./bad\n",
		"gotest: FAILED: ./panic TestPanic\n", "gotest: FAILED: ./build does not build\n",
		"gotest: FAILED: ./late", "TestLate",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, bad := range []string{"said by a test that passes", "FLAKY", "TestOther"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("it says %q", bad)
		}
	}
	if _, err := os.Stat(report); err == nil {
		t.Error("something is reported as flaky")
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestFlakyTestsAreExcusedThrice(t *testing.T) {
	report := write(t)
	var out strings.Builder
	if status := run(t.Context(), []string{"-flaky=" + report, "./flaky"}, &out); status != 1 {
		t.Errorf("with four flaky tests the status is %d", status)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "FLAKY: ./flaky Test"); n != 3 || strings.Count(string(text), "the machine was busy") != 3 {
		t.Errorf("the report names %d tests:\n%s", n, text)
	}
	if !strings.Contains(out.String(), "FAILED: ./flaky TestD") {
		t.Errorf("the fourth is excused:\n%s", out.String())
	}
	if status := run(t.Context(), []string{"-flaky=" + report, "./flaky"}, &out); status != 0 {
		t.Errorf("after it the status is %d:\n%s", status, out.String())
	}
}

func TestWithoutAReportNothingIsExcused(t *testing.T) {
	write(t)
	var out strings.Builder
	if status := run(t.Context(), []string{"-run=TestA", "./flaky"}, &out); status != 1 || strings.Contains(out.String(), "FLAKY") {
		t.Errorf("the status is %d:\n%s", status, out.String())
	}
}
