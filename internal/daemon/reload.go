package daemon

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// settle is how long the policy file must stay unchanged before a reload; triggers within that time share one reload.
const settle = 250 * time.Millisecond

// apply puts policies into force, or changes nothing.
func (d *Daemon) apply(c *config.Config) error {
	next, err := d.workspaces.plan(c.Workspaces)
	if err != nil {
		return err
	}
	d.rotator.Load(c.Policies, d.workspaces.commit(next, c.Workspaces))
	d.digest = c.Digest
	d.warn(c.Warnings)
	d.metrics.Reloaded(true)
	return nil
}

func (d *Daemon) warn(warnings []config.Fault) {
	for _, w := range warnings {
		d.log.Warn("configuration warning", "warning", w.Error())
	}
}

// reload reads the policies again. Unless a person asked for it, it does not load a text that is already in force, and
// does not log the same fault again.
func (d *Daemon) reload(ctx context.Context, asked bool) (int, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	c, err := config.LoadPolicies(ctx, d.cfg.Env.Source(), d.cfg.Env, d.cfg.Lookuper)
	if err == nil && !asked && c.Digest == d.digest && d.reloadFault() == "" {
		return len(c.Policies), nil
	}
	was := d.rotator.Snapshot().Policies
	if err == nil {
		err = d.apply(c)
	}
	if err != nil {
		d.metrics.Reloaded(false)
		was := d.lastFailed.Swap(new(err.Error()))
		if asked || was == nil || *was != err.Error() {
			d.log.Error("reloading policies failed, the old ones stay in force", "err", err)
		}
		return 0, fmt.Errorf("reloading policies: %w", err)
	}
	d.lastFailed.Store(nil)
	added, removed, changed := difference(was, c.Policies)
	d.log.Info("policies reloaded", "policies", len(c.Policies), "added", added, "removed", removed, "changed", changed)
	return len(c.Policies), nil
}

// difference names the policies that a reload adds, removes and changes, and of the latter what changes.
func difference(was []rotator.PolicyStatus, is []plan.Policy) (added, removed, changed []string) {
	before := map[string]plan.Policy{}
	for _, s := range was {
		before[s.Policy.Name] = *s.Policy
	}
	for _, p := range is {
		old, known := before[p.Name]
		delete(before, p.Name)
		if fields := fieldsChanged(old, p); !known {
			added = append(added, p.Name)
		} else if len(fields) > 0 {
			changed = append(changed, p.Name+" ("+strings.Join(fields, ", ")+")")
		}
	}
	return few(added), few(slices.Sorted(maps.Keys(before))), few(changed)
}

var wordsMeet = regexp.MustCompile(`([a-z])([A-Z])`)

// fieldsChanged names the fields that differ, as the policy file does.
func fieldsChanged(old, p plan.Policy) []string {
	fields := old.Settings.Diff(p.Settings)
	a, b := reflect.ValueOf(old), reflect.ValueOf(p)
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		if name != "Settings" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			fields = append(fields, strings.ToLower(wordsMeet.ReplaceAllString(name, "${1}_$2")))
		}
	}
	return fields
}

// few keeps a line of the log short.
func few(names []string) []string {
	const most = 20
	if len(names) <= most {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", len(names)-most))
}

// reloadFault returns why the last reload failed.
func (d *Daemon) reloadFault() string {
	if fault := d.lastFailed.Load(); fault != nil {
		return *fault
	}
	return ""
}

// watchFolder watches the policy file's folder rather than the file: an editor replaces the file, and Kubernetes swaps a
// link next to it. The watcher is nil when policies come from the environment.
func (d *Daemon) watchFolder() (*fsnotify.Watcher, error) {
	path := d.cfg.Env.Source().Path
	if path == "" {
		return nil, nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching the policy file: %w", err)
	}
	if err := w.Add(filepath.Dir(path)); err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("watching the folder of the policy file %s: %w", path, err)
	}
	return w, nil
}

// reloadLoop reloads on a signal or a change in the folder.
func (d *Daemon) reloadLoop(ctx context.Context, w *fsnotify.Watcher) {
	var events chan fsnotify.Event
	var errs chan error
	if w != nil {
		events, errs = w.Events, w.Errors
		defer func() { _ = w.Close() }()
	}
	file := filepath.Base(d.cfg.Env.Source().Path)
	quiet := time.NewTimer(settle)
	quiet.Stop()
	asked := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.cfg.Hangup:
			asked = true
			quiet.Reset(settle)
		case e := <-events:
			// A ConfigMap's file is a link to ..data/file. Changes of other files in the folder must not delay the reload.
			if name := filepath.Base(e.Name); name == file || name == "..data" {
				quiet.Reset(settle)
			}
		case err := <-errs:
			d.log.Warn("watching the policy file failed; send SIGHUP after changes", "err", err)
		case <-quiet.C:
			_, _ = d.reload(ctx, asked) // reload logs and counts the error
			asked = false
		}
	}
}
