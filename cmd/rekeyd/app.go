package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/web"
)

// app is one run of the command, with its inputs and outputs.
type app struct {
	lookuper       envconfig.Lookuper
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	hangup         <-chan os.Signal
	terminal       func(stream any) bool                      // nil: as the operating system says
	size           func(stdout io.Writer) (rows, columns int) // of the terminal; nil: as the operating system says
	plain          *bool                                      // --no-color, once the flags are read
}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // or configuration
	exitToDo   = 3 // plan: there is something to do
)

// run carries out one command and returns the exit status.
func (a app) run(ctx context.Context, args []string) int {
	var help bytes.Buffer // cobra does not report that it could not be written
	root := a.root(&help)
	root.SetArgs(append([]string{}, args...)) // nil would be the arguments of this process
	err := root.ExecuteContext(ctx)
	if help.Len() > 0 {
		err = cmp.Or(err, a.print("%s", safe(help.String())))
	}
	return a.exit(err)
}

// exit reports an error, one line per fault, and returns the exit status.
func (a app) exit(err error) int {
	var faults config.Faults
	var misused usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &faults):
		for _, f := range faults {
			a.printError("error", f)
		}
		return exitUsage
	case errors.Is(err, errToDo):
		return exitToDo
	case err == errNotOurs: //nolint:errorlint // alone, it says nothing that stdout does not
		return exitFailed
	}
	a.printError("error", err)
	if errors.As(err, &misused) {
		return exitUsage
	}
	return exitFailed
}

// printError writes to stderr: one line, or one for each of several errors. It hides text that looks like a secret,
// since an argument may be one.
func (a app) printError(kind string, err error) {
	for line := range strings.Lines(err.Error()) {
		a.say("rekeyd: %s: %s\n", kind, strings.TrimSpace(secret.HideShapes(line)))
	}
}

// load reads environment and policies, and warns.
func (a app) load() (daemon.Settings, error) {
	a.warn(config.UnknownVariables(a.environ))
	s, err := daemon.Load(a.lookuper)
	s.Unwrapped = a.unwrapped
	return s, err
}

// unwrapped warns that this command has used up a wrapped secret id, which may be the daemon's.
func (a app) unwrapped() {
	a.say("rekeyd: warning: this command has used up the wrapped secret id; give the daemon a new one for its next start, and commands an unwrapped one in REKEYD_VAULT_SECRET_ID\n")
}

func (a app) warn(warnings []config.Fault) {
	for _, w := range warnings {
		a.printError("warning", w)
	}
}

// daemon is `rekeyd run`.
func (a app) daemon(ctx context.Context, _ options, _ []string) error {
	warnings := config.UnknownVariables(a.environ) // for the log, once there is one
	s, err := daemon.Load(a.lookuper)
	if err != nil {
		a.warn(warnings)
		return err
	}
	if _, chosen := a.lookuper.Lookup("REKEYD_LOG_FORMAT"); !chosen && a.isTerminal(a.stderr) {
		s.Env.LogFormat = "text"
	}
	d, err := a.build(s, escaped{a.stderr}, warnings)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	if !s.Env.Pprof {
		runtime.MemProfileRate = 0 // it would note, in two megabytes, what no client may read
	}
	if _, chosen := a.lookuper.Lookup("GOGC"); !chosen {
		time.AfterFunc(startUp, func() { limitGarbage(time.Now()) })
	}
	return d.Run(ctx)
}

func (a app) build(s daemon.Settings, log io.Writer, warnings []config.Fault) (*daemon.Daemon, error) {
	v, rev := built()
	return daemon.New(daemon.Config{Settings: s, Log: log, Warnings: warnings, Version: v, Revision: rev, Hangup: a.hangup, Wall: wall})
}

// built returns version and revision: from the linker's flags, else from Go's build info.
func built() (v, rev string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(version, "unknown"), cmp.Or(revision, "unknown")
	}
	var noted string
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			noted = s.Value
		}
	}
	return cmp.Or(version, info.Main.Version), cmp.Or(revision, noted, "unknown")
}

// health is `rekeyd health`, for images without a shell or an HTTP client.
func (a app) health(ctx context.Context, _ options, _ []string) error {
	env, err := config.LoadListener(a.lookuper)
	if err != nil {
		return err
	}
	answer, err := web.Healthy(ctx, env)
	if err != nil {
		return err
	}
	return a.print("%s\n", answer)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (a app) print(format string, args ...any) error {
	if err := write(a.stdout, format, args...); err != nil {
		return fmt.Errorf("writing to stdout: %w", err)
	}
	return nil
}

// say writes to stderr.
func (a app) say(format string, args ...any) {
	_ = write(a.stderr, format, args...) // nowhere else to say it
}
