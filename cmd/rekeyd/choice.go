package main

import (
	"fmt"
	"maps"
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
	a.completeFlag(c, "label", labelsOf)
}

func (a app) completeWorkspaces(c *cobra.Command) { a.completeFlag(c, "workspace", workspacesOf) }

// completeFlag completes a flag from the policy file, without the network.
func (a app) completeFlag(c *cobra.Command, flag string, known func(*config.Config) []string) {
	_ = c.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) { // it exists
		c, err := config.ReadPolicies(cmd.Context(), a.lookuper)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return known(c), cobra.ShellCompDirectiveNoFileComp
	})
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
	if o.workspace != "" && !slices.Contains(workspacesOf(c), o.workspace) {
		return nil, config.Faults{{Text: fmt.Sprintf("there is no workspace %q; %s", o.workspace, config.Suggestion(o.workspace, workspacesOf(c)))}}
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

func workspacesOf(c *config.Config) []string {
	all := make([]string, len(c.Workspaces))
	for i, w := range c.Workspaces {
		all[i] = w.Name
	}
	return all
}

// labelsOf returns all labels, each once, as NAME=VALUE.
func labelsOf(c *config.Config) []string {
	seen := map[string]bool{}
	for _, p := range c.Policies {
		for name, value := range p.Labels {
			seen[name+"="+value] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
