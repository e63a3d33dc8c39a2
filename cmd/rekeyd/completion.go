package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// offered is what the shell completes: commands, and the flags of each.
func offered() [][2]string {
	return [][2]string{
		{"run", ""}, {"check", "--online --json"}, {"plan", "--json"}, {"status", "--json"}, {"schedule", "-n --from --json"},
		{"rotate", "--revoke-now --reason --json"}, {"rollback", "--json"}, {"rename", "--json"}, {"prune", "--yes --json"},
		{"health", ""}, {"completion", "bash zsh fish"}, {"version", ""}, {"help", "env"},
	}
}

// completion is `rekeyd completion`: a script for the shell, such as source <(rekeyd completion bash).
func (a app) completion(_ context.Context, args []string) error {
	shell, err := a.parse(a.flags("completion"), args, 1)
	if err != nil {
		return err
	}
	if len(shell) == 0 {
		return usageError{errors.New("rekeyd completion: name a shell: bash, zsh or fish")}
	}
	switch shell[0] {
	case "bash":
		return a.print("%s", safe(bashCompletion()))
	case "zsh":
		return a.print("#compdef rekeyd\nautoload -U +X bashcompinit && bashcompinit\n%s", safe(bashCompletion()))
	case "fish":
		return a.print("%s", safe(fishCompletion()))
	}
	return usageError{fmt.Errorf("rekeyd completion: there is none for %q; name bash, zsh or fish", shell[0])}
}

func bashCompletion() string {
	var names []string
	var cases strings.Builder
	for _, o := range offered() {
		names = append(names, o[0])
		if o[1] != "" {
			fmt.Fprintf(&cases, "    %s) words=%q ;;\n", o[0], o[1])
		}
	}
	return fmt.Sprintf(`_rekeyd() {
  local words=""
  case "${COMP_WORDS[1]}" in
%s  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words=%q; fi
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _rekeyd rekeyd
`, cases.String(), strings.Join(names, " "))
}

func fishCompletion() string {
	var out strings.Builder
	out.WriteString("complete -c rekeyd -f\n")
	for _, o := range offered() {
		fmt.Fprintf(&out, "complete -c rekeyd -n __fish_use_subcommand -a %s\n", o[0])
		if o[1] != "" {
			fmt.Fprintf(&out, "complete -c rekeyd -n '__fish_seen_subcommand_from %s' -a '%s'\n", o[0], o[1])
		}
	}
	return out.String()
}
