package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// addChoice adds the flags that choose policies where several may be named.
func (a app) addChoice(c *cobra.Command, o *options) {
	c.Flags().StringVar(&o.workspace, "workspace", "", "only policies of the workspace `NAME`")
	c.Flags().StringArrayVar(&o.labels, "label", nil, "only policies with the label `NAME=VALUE`; several must all be there")
	a.completeWorkspaces(c)
	_ = c.RegisterFlagCompletionFunc("label", a.complete(func(c *config.Config, _ []string) []string { return labelsOf(c) })) // it exists
}

func (a app) completeWorkspaces(c *cobra.Command) {
	_ = c.RegisterFlagCompletionFunc("workspace", a.complete(func(c *config.Config, _ []string) []string { return c.WorkspaceNames() })) // it exists
}

// complete completes from the policy file, without the network.
func (a app) complete(known func(c *config.Config, args []string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
		if c, err := config.ReadPolicies(cmd.Context(), a.lookuper); err == nil {
			words = known(c, args)
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// chooses reports whether --workspace or --label is given.
func (o options) chooses() bool { return o.workspace != "" || len(o.labels) > 0 }

// choose returns those of names that --workspace and --label leave; without names, of all policies in the file. Without
// these flags it returns names: none of them stands for all policies, removed ones included.
func (o options) choose(c *config.Config, names []string) ([]string, error) {
	if !o.chooses() {
		return names, nil
	}
	if err := known(c, names); err != nil {
		return nil, err
	}
	if o.workspace != "" && !slices.Contains(c.WorkspaceNames(), o.workspace) {
		return nil, c.NoWorkspace(o.workspace)
	}
	labels := labelsOf(c)
	for _, label := range o.labels {
		switch name, _, ok := strings.Cut(label, "="); {
		case !ok || name == "":
			return nil, usageError{fmt.Errorf("--label is %q; write a name and a value, such as team=speech", label)}
		case len(labels) == 0:
			return nil, config.Faults{{Text: fmt.Sprintf("no policy has the label %q, and none has any; add labels to the policy file", label)}}
		case !slices.Contains(labels, label):
			return nil, config.Faults{{Text: fmt.Sprintf("no policy has the label %q; %s", label, config.Suggestion(label, labels))}}
		}
	}
	var chosen []string
	for _, p := range c.Policies {
		if (len(names) == 0 || slices.Contains(names, p.Name)) && o.matches(p) {
			chosen = append(chosen, p.Name)
		}
	}
	if len(chosen) == 0 {
		return nil, config.Faults{{Text: "no policy is chosen: none has all of the names, the workspace and the labels; leave some out"}}
	}
	return chosen, nil
}

func (o options) matches(p plan.Policy) bool {
	for _, label := range o.labels {
		if name, value, _ := strings.Cut(label, "="); p.Labels[name] != value {
			return false
		}
	}
	return o.workspace == "" || p.Workspace == o.workspace
}

// labelsOf returns all labels, each once, as NAME=VALUE.
func labelsOf(c *config.Config) []string {
	var all []string
	for _, p := range c.Policies {
		for name, value := range p.Labels {
			all = append(all, name+"="+value)
		}
	}
	return sorted(all)
}
