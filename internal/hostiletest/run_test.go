// Package hostiletest tries hostile input against the real binary and counts what becomes of it: see make hostile.
package hostiletest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

const (
	slow    = 200 * time.Millisecond
	longest = 2000 // runes of a line of complaint

	// canary is a value that inputs put where no secret belongs, or where one does. No output repeats it.
	canary = "sk_canary0123456789abcdef0123456789abcdef"
)

// input is one configuration. The variables are all that the process has, beside a policy file with Policies when that is
// not empty.
type input struct {
	Name     string
	Env      map[string]string
	Policies string
}

// row is what became of one family of inputs.
type row struct {
	family                                          string
	tried, refused, accepted, slower, panics, wrong int
}

// verdict is what became of one input.
type verdict struct {
	accepted bool
	panicked bool
	wrong    string // what a refusal lacks, or an answer has that it must not have
	took     time.Duration
}

func (r *row) count(t *testing.T, name string, v verdict) {
	t.Helper()
	r.tried++
	switch {
	case v.panicked:
		r.panics++
		t.Errorf("%s: %s: panic: %s", r.family, name, v.wrong)
	case v.wrong != "":
		r.wrong++
		t.Errorf("%s: %s: %s", r.family, name, v.wrong)
	case v.accepted:
		r.accepted++
	default:
		r.refused++
	}
	if v.took > slow {
		r.slower++
	}
}

// TestHostileInput prints a table with a row for each family.
func TestHostileInput(t *testing.T) {
	if os.Getenv("REKEYD_HOSTILE") == "" {
		t.Skip("REKEYD_HOSTILE is not set: make hostile runs this")
	}
	binaries, err := process.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	families := []func(*testing.T) row{
		func(t *testing.T) row { return tryConfigs(t, binaries, "configurations", configInputs()) },
		func(t *testing.T) row { return tryConfigs(t, binaries, "base URLs", baseURLs()) },
		func(t *testing.T) row { return tryRemotes(t, binaries) },
		func(t *testing.T) row { return tryRequests(t, binaries) },
	}
	rows := make([]row, len(families))
	t.Run("families", func(t *testing.T) {
		for i, name := range []string{"configurations", "base URLs", "remotes", "requests"} {
			t.Run(name, func(t *testing.T) { t.Parallel(); rows[i] = families[i](t) })
		}
	})
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "family\ttried\trefused with a clear sentence\taccepted\tslower than 200 ms\tpanics\twrong\t") // to memory
	for _, r := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", r.family, r.tried, r.refused, r.accepted, r.slower, r.panics, r.wrong)
	}
	_ = w.Flush()
	t.Logf("\n%s", table.String())
}

// run runs rekeyd to its end; the time is that of the process. One that does not end is killed, and that is what is wrong.
func run(t *testing.T, binary string, env []string, args ...string) (status int, said string, v verdict) {
	t.Helper()
	begun := time.Now()
	p := process.Start(t, env, binary, args...)
	defer p.Kill()
	ended := p.Ended(process.Patience)
	v.took = time.Since(begun)
	said = p.Stdout.String() + p.Stderr.String()
	v.panicked, v.wrong = strings.Contains(said, "goroutine "), complaint(said)
	switch {
	case v.panicked:
		v.wrong = said
	case !ended:
		v.wrong = fmt.Sprintf("it does not end within %s; it said: %s", process.Patience, said)
		return 0, said, v
	}
	status = p.Wait()
	v.accepted = status == 0
	return status, said, v
}
