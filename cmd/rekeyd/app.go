package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/daemon"
)

// app is one run of the command, with all that it may touch.
type app struct {
	lookuper       envconfig.Lookuper
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
	hangup         <-chan os.Signal
	terminal       func(stream any) bool // nil: as the operating system says
}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // or configuration
	exitToDo   = 3 // plan: there is something to do
)

const usage = `rekeyd rotates the API keys of ElevenLabs service accounts and publishes them in Vault.

  rekeyd [run]                       the daemon
  rekeyd check [--online] [--json]   look for faults in environment and policies; calls nobody, unless --online:
                                     then a doctor's report on Vault and ElevenLabs
  rekeyd plan [POLICY] [--json]      what would be done now and why; changes nothing
  rekeyd status [POLICY] [--json]    how each policy stands; changes nothing
  rekeyd schedule [POLICY] [-n 5] [--from TIME] [--json]
                                     the next runs: in the policy's zone, and in UTC
  rekeyd rotate POLICY... [--revoke-now] [--reason TEXT] [--json]
                                     rotate now; --revoke-now: every older key is disabled at once
  rekeyd rollback POLICY [--json]    put the previous key back
  rekeyd rename OLD NEW [--json]     give the ledger entry of OLD, which is no longer in the policy file, to NEW: where a
                                     rename was undone, rekeyd rename speech tts-prod
  rekeyd prune [POLICY...] [--yes] [--json]
                                     list, then delete, keys that nobody holds; those of a removed policy if it is named
  rekeyd health                      ask the daemon beside this process whether it is alive: /healthz, without curl
  rekeyd completion bash|zsh|fish    a script for the shell
  rekeyd version
  rekeyd help [env]                  this text, or the environment variables

rotate, rollback, rename and prune are safe beside a running daemon. Everything else is configured by environment variables
and the policy file that REKEYD_POLICY_FILE names.
Exit status: 0 done, 1 failed, 2 usage or configuration, 3 plan has something to do.
`

// run carries out one command and returns the exit status.
func (a app) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		args = []string{"run"}
	}
	name, rest := args[0], args[1:]
	commands := map[string]func(context.Context, []string) error{
		"run": a.daemon, "check": a.check, "status": a.status, "schedule": a.schedule, "version": a.version,
		"plan": a.plan, "rotate": a.rotate, "rollback": a.rollback, "rename": a.rename, "prune": a.prune, "completion": a.completion,
		"health": a.health, "help": a.help, "-h": a.help, "-help": a.help, "--help": a.help, "--version": a.version,
	}
	command, known := commands[name]
	if !known {
		return a.exit(usageError{fmt.Errorf("there is no command %q; %s; see rekeyd help", name, config.Meant(name, words(commands)))})
	}
	return a.exit(command(ctx, rest))
}

// words are the commands that a typing error may have been meant for.
func words[T any](commands map[string]T) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(commands)), func(name string) bool { return strings.HasPrefix(name, "-") })
}

// usageError is a command line that means nothing.
type usageError struct{ error }

// exit reports an error, one line per fault, and returns the exit status.
func (a app) exit(err error) int {
	var faults config.Faults
	var misused usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.As(err, &faults):
		for _, f := range faults {
			a.complain("error", f)
		}
		return exitUsage
	case errors.Is(err, errToDo):
		return exitToDo
	}
	a.complain("error", err)
	if errors.As(err, &misused) {
		return exitUsage
	}
	return exitFailed
}

// complain writes to stderr: one line, or one for each of several errors. What looks like a secret is not repeated: an
// argument may be one.
func (a app) complain(kind string, err error) {
	for line := range strings.Lines(err.Error()) {
		a.say("rekeyd: %s: %s\n", kind, strings.TrimSpace(elevenlabs.HideShapes(line)))
	}
}

// load reads environment and policies, and warns.
func (a app) load() (daemon.Settings, error) {
	a.warn(config.UnknownVariables(a.environ))
	return daemon.Load(a.lookuper)
}

func (a app) warn(warnings []config.Fault) {
	for _, w := range warnings {
		a.complain("warning", w)
	}
}

// flags returns an empty set of flags for a command.
func (a app) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet("rekeyd "+name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // what is wrong is told once, by exit
	return f
}

// parse takes flags before and after the arguments, of which there may be at most max.
func (a app) parse(f *flag.FlagSet, args []string, most int) ([]string, error) {
	var operands []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				f.SetOutput(a.stderr)
				f.PrintDefaults()
				return nil, err
			}
			return nil, usageError{fmt.Errorf("%s: %w; see rekeyd help", f.Name(), err)}
		}
		if f.NArg() == 0 {
			break
		}
		operands, args = append(operands, f.Arg(0)), f.Args()[1:]
	}
	if len(operands) > most {
		return nil, usageError{fmt.Errorf("%s: unexpected argument %q; see rekeyd help", f.Name(), operands[most])}
	}
	return operands, nil
}

// daemon is `rekeyd run`.
func (a app) daemon(ctx context.Context, args []string) error {
	if _, err := a.parse(a.flags("run"), args, 0); err != nil {
		return err
	}
	warnings := config.UnknownVariables(a.environ) // for the log, if there will be one
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
	go giveBack(ctx)
	return d.Run(ctx)
}

// giveBack returns once a minute what a rush took, until ctx ends. A collection in the midst of a rush lets the heap grow
// to twice what was in use then, and an idle daemon makes little new garbage: four minutes after the first keys of 10,000
// policies nothing had been returned. The price is one more collection a minute.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			debug.FreeOSMemory()
		}
	}
}

func (a app) build(s daemon.Settings, log io.Writer, warnings []config.Fault) (*daemon.Daemon, error) {
	v, rev := built()
	return daemon.New(daemon.Config{Settings: s, Log: log, Warnings: warnings, Version: v, Revision: rev, Hangup: a.hangup, Wall: wall})
}

// built says which source this is: by the linker's flags, else by what Go notes in a binary.
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

func (a app) version(_ context.Context, args []string) error {
	if _, err := a.parse(a.flags("version"), args, 0); err != nil {
		return err
	}
	v, rev := built()
	return a.print("rekeyd %s (revision %s)\n", v, rev)
}

// health is `rekeyd health`, for images without a shell or an HTTP client.
func (a app) health(ctx context.Context, args []string) error {
	if _, err := a.parse(a.flags("health"), args, 0); err != nil {
		return err
	}
	env, err := config.LoadEnv(a.lookuper)
	if err != nil {
		return err
	}
	answer, err := daemon.Healthy(ctx, env)
	if err != nil {
		return err
	}
	return a.print("%s\n", answer)
}

func (a app) help(_ context.Context, args []string) error {
	topic, err := a.parse(a.flags("help"), args, 1)
	switch {
	case err != nil:
		return err
	case len(topic) == 0:
		return a.print(usage)
	case topic[0] == "env":
		return config.WriteHelp(a.stdout)
	}
	return usageError{fmt.Errorf("there is no help on %q; write rekeyd help or rekeyd help env", topic[0])}
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
