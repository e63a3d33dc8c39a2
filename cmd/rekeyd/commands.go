package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rekeyd/rekeyd/config"
)

// options are the flags of all commands; each command sets its own.
type options struct {
	format                                  format
	online, revoke, yes, rotate, redact     bool
	all, dryRun, exitCode, watch            bool
	interval                                time.Duration
	labels, states                          []string
	runs                                    int
	from, since, reason, account, workspace string
	file, policyFile, mount, prefix         string
}

// Groups of commands in the help.
const (
	groupDaemon = "Daemon:"
	groupLook   = "Look, and change nothing:"
	groupChange = "Change, safe beside a running daemon:"
	groupHelp   = "Help:"
)

// manyNames is no limit in practice; a shell has a lower one.
const (
	manyNames = 1 << 20
	manyFiles = manyNames - 1 // which --workspace and --label do not choose
)

// root returns the command line: every command with its help, which goes to stdout, flags and completion.
func (a app) root(stdout io.Writer) *cobra.Command {
	a.plain = new(bool)
	v, rev := built()
	o := options{format: formatTable}
	root := &cobra.Command{Use: "rekeyd", Version: v + " (revision " + rev + ")", Args: knownCommand, SilenceErrors: true, SilenceUsage: true,
		Long: `rekeyd rotates the API keys of ElevenLabs service accounts and publishes them in Vault.

Without a command rekeyd is the daemon, as with run; on a terminal it prints this text.
Environment variables and the policy file that REKEYD_POLICY_FILE names configure everything else.
Exit status: 0 done, 1 failed, 2 usage or configuration, 3 plan has something to do, or status --exit-code sees trouble.`}
	root.RunE = func(c *cobra.Command, names []string) error {
		if a.isTerminal(a.stdout) {
			return c.Help()
		}
		return a.daemon(c.Context(), o, names)
	}
	root.SetVersionTemplate("rekeyd {{.Version}}\n")
	root.SetOut(stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if !c.HasParent() && c.Flags().NArg() > 0 { // the flag of a command that does not exist
			return knownCommand(c, c.Flags().Args())
		}
		return misuse(c, "%w%s", err, similarFlag(c, err))
	})
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	for _, title := range []string{groupDaemon, groupLook, groupChange, groupHelp} {
		root.AddGroup(&cobra.Group{ID: title, Title: title})
	}
	root.PersistentFlags().BoolVar(a.plain, "no-color", false, "no colours, as with NO_COLOR in the environment")
	a.addCommands(root, &o)
	addHelp(root)
	return root
}

func (a app) addCommands(root *cobra.Command, o *options) {
	add := func(group string, c *cobra.Command, least, most int, do func(context.Context, options, []string) error) *cobra.Command {
		c.GroupID, c.Args, c.ValidArgsFunction = group, operands(least, most), a.policyNames(least, most)
		c.RunE = func(c *cobra.Command, names []string) error { return do(c.Context(), *o, names) }
		if (group == groupLook || group == groupChange) && c.Name() != "discover" {
			o.addOutput(c)
		}
		if most == manyNames {
			a.addChoice(c, o)
		}
		root.AddCommand(c)
		return c
	}
	add(groupDaemon, &cobra.Command{Use: "run", Short: "Rotate keys until SIGTERM", Example: "  REKEYD_POLICY_FILE=policies.yaml rekeyd run\n  REKEYD_LOG_FORMAT=text rekeyd run",
		Long: "Rotate keys until SIGTERM or SIGINT. SIGHUP reads the policies anew."}, 0, 0, a.daemon)
	add(groupDaemon, &cobra.Command{Use: "health", Short: "Ask the daemon on this host whether it is alive", Example: "  rekeyd health\n  docker exec rekeyd /rekeyd health",
		Long: "Ask the daemon that runs here with the same environment for /healthz, in images without curl. It needs no policies."}, 0, 0, a.health)

	check := add(groupLook, &cobra.Command{Use: "check [FILE...]", Short: "Find faults in environment and policies", Example: "  rekeyd check --online -o json\n  rekeyd check policies.yaml",
		Long: `Find every fault in environment and policies, without the network. With --online: a doctor's report on Vault and ElevenLabs.
With files: these policy files alone, without any environment. Admin keys are not looked up, and limits are at their defaults.`}, 0, manyFiles, a.check)
	check.ValidArgsFunction = policyFiles
	check.Flags().BoolVar(&o.online, "online", false, "ask Vault and ElevenLabs too; changes nothing")
	discover := add(groupLook, &cobra.Command{Use: "discover", Short: "Write a policy file for a workspace as it is", Example: "  rekeyd discover >policies.yaml\n  rekeyd discover --workspace eu --prefix apps",
		Long: `Write a policy file for a workspace as it is to stdout: a policy for each enabled key, with its settings and a path, and with
adopt where a record already holds it, by its key_id or by the end of the secret. Comments say what to decide, and propose
a policy for each account without a key. It needs no policy file, and without VAULT_ADDR it leaves out the records. Nothing is
written anywhere.`}, 0, 0, a.discover)
	discover.Flags().StringVar(&o.workspace, "workspace", "", "`NAME` of the workspace, where there are several; without a policy file, what to call it")
	discover.Flags().StringVar(&o.mount, "mount", "secret", "`MOUNT` of the records")
	discover.Flags().StringVar(&o.prefix, "prefix", "elevenlabs", "`PATH` at and below which records are looked for, and new ones proposed")
	a.completeWorkspaces(discover)
	planned := add(groupLook, &cobra.Command{Use: "plan [POLICY...]", Short: "Show what would be done now and why", Example: "  rekeyd plan --policy-file new.yaml\n  rekeyd plan tts-prod -o json",
		Long: `Show what the daemon would do now and why, like a diff, and what comes later. Exit status 3: there is something to do.
With --policy-file: what it would do once that file is loaded, and first how the file differs.`}, 0, manyNames, a.plan)
	planned.Flags().StringVar(&o.policyFile, "policy-file", "", "plan for the policies of `FILE` instead of those in force")
	_ = planned.RegisterFlagCompletionFunc("policy-file", policyFiles) // it exists
	status := add(groupLook, &cobra.Command{Use: "status [POLICY...]", Short: "Show how each policy stands", Example: "  rekeyd status --workspace eu --watch\n  rekeyd status tts-prod -o json",
		Long: `Show state, current key, its age, the next rotation, old keys and the last error of each policy. One policy that is named is
shown in full, as -o wide shows several. With --watch, a terminal is redrawn until Ctrl-C; a pipe has the table once, then the
line of each policy that changed, and -o json or yaml the whole document again when something changed.`}, 0, manyNames, a.status)
	status.Flags().StringSliceVar(&o.states, "state", nil, "only policies in the states `S,...`")
	_ = status.RegisterFlagCompletionFunc("state", completeStates) // it exists
	status.Flags().BoolVar(&o.exitCode, "exit-code", false, "exit status 3 if a policy that is shown is failing or in error")
	status.Flags().BoolVarP(&o.watch, "watch", "w", false, "look again until Ctrl-C, and show what changed")
	status.Flags().DurationVar(&o.interval, "interval", 10*time.Second, "with --watch: `TIME` between two looks, from "+config.FormatDuration(leastInterval)+" to "+config.FormatDuration(mostInterval))
	status.PreRunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed("interval") && !o.watch {
			return misuse(c, "--interval is the time between the looks of --watch, which is not given")
		}
		return nil
	}
	history := add(groupLook, &cobra.Command{Use: "history [POLICY...]", Short: "Show what became of each rotation", Example: "  rekeyd history tts-prod\n  rekeyd history --since 2026-03-01T00:00:00Z -o json",
		Long: `Show what the ledger remembers of each rotation, newest last: who asked and why, what became of the old key, and the evidence.
Removed policies are included. It reads the ledger only. -o wide adds the old keys' ids and times, probes and words.`}, 0, manyNames, a.history)
	history.Flags().StringVar(&o.since, "since", "", "rotations of which a step was at or after this `TIME` (RFC 3339)")
	schedule := add(groupLook, &cobra.Command{Use: "schedule [POLICY...]", Short: "List the next runs", Example: "  rekeyd schedule tts-prod\n  rekeyd schedule -n 10 --from 2026-03-01T00:00:00Z",
		Long: `List the next runs of each schedule, without the network: in the policy's zone, a tab, and in UTC. Those of several policies are
merged by time, with the policy's name and a tab in front. Policies in the modes manual and paused do not run: stderr says which,
and mode in -o json.`}, 0, manyNames, a.schedule)
	schedule.Flags().IntVarP(&o.runs, "n", "n", 5, "list so many `RUNS` of each policy")
	schedule.Flags().StringVar(&o.from, "from", "", "runs after this `TIME` (RFC 3339); default now")

	rotate := add(groupChange, &cobra.Command{Use: "rotate POLICY... | --all", Short: "Rotate keys now", Example: "  rekeyd rotate tts-prod\n  rekeyd rotate tts-prod --revoke-now --reason \"seen in a build log\"",
		Long: `Rotate the keys of these policies now, by the same protocol as the daemon. The key that was current is replaced.
Without names, --workspace, --label or --all says which.`}, 0, manyNames, a.rotate)
	rotate.Args = func(c *cobra.Command, names []string) error {
		switch chosen := len(names) > 0 || o.chooses(); {
		case !chosen && !o.all:
			return misuse(c, "no policy is named; name some, choose them with --label or --workspace, or take --all")
		case chosen && o.all:
			return misuse(c, "--all stands beside names or a choice; leave out one or the other")
		}
		return nil
	}
	rotate.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done, or why it would be refused, and change nothing")
	rotate.Flags().BoolVar(&o.all, "all", false, "every policy in the policy file")
	rotate.Flags().BoolVar(&o.revoke, "revoke-now", false, "disable every older key of the policy before it is done, those in overlap included")
	rotate.Flags().StringVar(&o.reason, "reason", "", "why, as `TEXT` for the log")
	add(groupChange, &cobra.Command{Use: "rollback POLICY", Short: "Put the previous key back", Example: "  rekeyd rollback tts-prod\n  rekeyd rollback tts-prod -o json",
		Long: "Enable the previous key again, verify it, and publish its secret from the record's kept versions."}, 1, 1, a.rollback)
	add(groupChange, &cobra.Command{Use: "rename OLD NEW", Short: "Give the ledger entry of a removed policy to another", Example: "  rekeyd rename speech tts-prod\n  rekeyd rename speech tts-prod -o json",
		Long: `Give the ledger entry of OLD, which is no longer in the policy file, to NEW: for a rename that was undone, or one that the
daemon cannot tell by itself.`}, 2, 2, a.rename)
	prune := add(groupChange, &cobra.Command{Use: "prune [POLICY...]", Short: "List lost keys, ask, and delete them", Example: "  rekeyd prune\n  rekeyd prune old-policy --yes",
		Long: `List this installation's lost keys, ask, and delete them. The keys of a removed policy, if it is named, are disabled, and the
daemon deletes them after their quarantine.`}, 0, manyNames, a.prune)
	prune.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	leaked := add(groupChange, &cobra.Command{Use: "leaked", Short: "Say whose key a secret is, and make it stop", Example: "  rekeyd leaked <found.txt\n  rekeyd leaked --rotate -o json <found.txt",
		Long: `Read a secret that was found in a log or a public repository from stdin, and say whose key it is, by the ledger's salted
hashes, and whether it still works. Nothing changes without --rotate. Exit status 1: it is no key of this installation.`}, 0, 0, a.leaked)
	leaked.Args = fromStdin
	leaked.Flags().BoolVar(&o.rotate, "rotate", false, "rotate the key's policy as with rotate --revoke-now, until ElevenLabs rejects the secret")
	asked := add(groupChange, &cobra.Command{Use: "conformance", Short: "Ask whether ElevenLabs is as rekeyd assumes", Example: "  rekeyd conformance --account svcacc_9f8b7c6d5e4a3b2c1d0e\n  rekeyd conformance --account svcacc_9f8b7c6d5e4a3b2c1d0e --yes -o json >report.json",
		Long: `Ask ElevenLabs whether it is as rekeyd assumes, with throwaway keys named rekeyd-conformance.… in one service account, which it
deletes. It says what it will do, and asks first. It costs no credits and touches no other key. The report has no secret, and
no id. Neither policies nor Vault are needed. Exit status: 0 all that could be asked holds, 1 something differs or failed.`}, 0, 0, a.conformance)
	asked.Flags().StringVar(&o.account, "account", "", "`ID` of the service account in which the keys are made")
	asked.Flags().StringVar(&o.workspace, "workspace", "", "`NAME` of the workspace, where there are several")
	a.completeWorkspaces(asked)
	asked.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	asked.Flags().BoolVar(&o.redact, "redact", true, "leave out ids and what ElevenLabs says in its own words; secrets are never shown")
	inspect := &cobra.Command{Use: "debug", Short: "Collect what an issue needs", GroupID: groupHelp, Args: knownCommand, Example: "  rekeyd debug bundle -o bundle.tar.gz\n  rekeyd help debug bundle"}
	bundle := &cobra.Command{Use: "bundle", Short: "Collect status, history, configuration, metrics, goroutines and versions", Example: "  rekeyd debug bundle -o bundle.tar.gz\n  kubectl exec deploy/rekeyd -- /rekeyd debug bundle >bundle.tar.gz",
		Long: `Collect status, history, configuration, metrics, goroutines and versions in one tar.gz, to attach to an issue. Metrics and
goroutines come from the daemon that runs here with the same environment; its README.txt says what could not be had.
It is searched for secrets first: where one is found, nothing is written.`,
		Args: operands(0, 0), ValidArgsFunction: cobra.NoFileCompletions}
	bundle.RunE = func(c *cobra.Command, names []string) error { return a.bundle(c.Context(), *o, names) }
	bundle.Flags().StringVarP(&o.file, "output", "o", "", "write `FILE`, which must not exist; default stdout, unless it is a terminal")
	_ = bundle.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { // it exists
		return nil, cobra.ShellCompDirectiveDefault // names of files
	})
	inspect.RunE = func(c *cobra.Command, _ []string) error { return misuse(c, "name a command: bundle") }
	inspect.AddCommand(bundle)
	root.AddCommand(inspect)
	add(groupHelp, &cobra.Command{Use: "version", Short: "Print version and revision", Example: "  rekeyd version\n  rekeyd --version"}, 0, 0,
		func(context.Context, options, []string) error { return a.print("rekeyd %s\n", root.Version) })
}

// addOutput adds the flags that choose the format.
func (o *options) addOutput(c *cobra.Command) {
	c.Flags().BoolFunc("json", "the same as -o json", func(text string) error {
		if on, err := strconv.ParseBool(text); err != nil || !on {
			return err
		}
		return o.format.Set(string(formatJSON))
	})
	c.Flags().VarP(&o.format, "output", "o", "`FORMAT`: "+knownFormats())
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp)) // it exists
}

// addHelp adds cobra's own commands. By default they answer an unknown command or shell with help and exit status 0.
func addHelp(root *cobra.Command) {
	env := &cobra.Command{Use: "env", Short: "Environment variables"}
	env.SetHelpFunc(func(c *cobra.Command, _ []string) { _ = config.WriteHelp(c.OutOrStdout()) }) // the writer records a failure
	root.AddCommand(env)
	root.SetHelpCommandGroupID(groupHelp)
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Use, help.Short, help.Long, help.Example = "help [COMMAND]", "Explain a command, or with env the environment variables", "",
		"  rekeyd help rotate\n  rekeyd help env"
	help.Args = func(_ *cobra.Command, topic []string) error {
		_, unknown, _ := root.Find(topic)
		return knownCommand(root, unknown)
	}
	complete := help.ValidArgsFunction
	help.ValidArgsFunction = func(c *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
		topics, directive := complete(c, args, text)
		return append(topics, "env\t"+env.Short), directive
	}
	root.SetCompletionCommandGroupID(groupHelp)
	root.InitDefaultCompletionCmd()
	completion, _, _ := root.Find([]string{"completion"})
	completion.Args, completion.Example = knownCommand, "  source <(rekeyd completion bash)\n  rekeyd completion fish > ~/.config/fish/completions/rekeyd.fish"
	for _, shell := range completion.Commands() {
		shell.Args = operands(0, 0)
		shell.Example = map[string]string{
			"bash":       "  source <(rekeyd completion bash)\n  rekeyd completion bash >/etc/bash_completion.d/rekeyd",
			"zsh":        "  source <(rekeyd completion zsh)\n  rekeyd completion zsh >\"${fpath[1]}/_rekeyd\"",
			"fish":       "  rekeyd completion fish | source\n  rekeyd completion fish >~/.config/fish/completions/rekeyd.fish",
			"powershell": "  rekeyd completion powershell | Out-String | Invoke-Expression\n  rekeyd completion powershell >rekeyd.ps1",
		}[shell.Name()]
	}
	completion.RunE = func(c *cobra.Command, _ []string) error { return misuse(c, "name a shell: bash, zsh or fish") }
}

// similarFlag suggests the known flag that is most like an unknown one; "" if none is like it.
func similarFlag(c *cobra.Command, err error) string {
	typed, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return ""
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if name, near := strings.CutPrefix(config.Suggestion(typed, known), "did you mean "); near {
		return "; did you mean --" + name
	}
	return ""
}

// usageError is an invalid command line.
type usageError struct{ error }

func misuse(c *cobra.Command, format string, args ...any) error {
	return usageError{fmt.Errorf(format+"; see %s --help", append(args, c.CommandPath())...)}
}

// knownCommand refuses arguments: cobra would have run a known one as a subcommand of c.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, sub := range c.Commands() {
		known = append(known, sub.Name())
	}
	return misuse(c, "there is no command %q; %s", args[0], config.Suggestion(args[0], known))
}

func operands(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return misuse(c, "%s given; write %s", count(len(args), "argument is", "arguments are"), c.UseLine())
		}
		return nil
	}
}

// policyFiles completes names of files.
func policyFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// completeStates completes the last of the states that commas part.
func completeStates(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	var all []string
	for _, state := range stateNames() {
		if !slices.Contains(strings.Split(before, ","), state) {
			all = append(all, before+state)
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// policyNames completes names from the policy file, without the network. The old name of a rename is not in it.
func (a app) policyNames(least, most int) cobra.CompletionFunc {
	return a.complete(func(c *config.Config, args []string) []string {
		if len(args) < least-1 || len(args) >= most {
			return nil
		}
		return slices.DeleteFunc(c.PolicyNames(), func(name string) bool { return slices.Contains(args, name) })
	})
}
