package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rekeyd/rekeyd/config"
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
	if err == nil && !asked && c.Digest == d.digest && d.lastFailed == "" {
		return len(c.Policies), nil
	}
	if err == nil {
		err = d.apply(c)
	}
	if err != nil {
		d.metrics.Reloaded(false)
		if asked || d.lastFailed != err.Error() {
			d.log.Error("reloading policies failed, the old ones stay in force", "err", err)
		}
		d.lastFailed = err.Error()
		return 0, fmt.Errorf("reloading policies: %w", err)
	}
	d.lastFailed = ""
	d.log.Info("policies reloaded", "policies", len(c.Policies))
	return len(c.Policies), nil
}

// reloadFault returns why the last reload failed.
func (d *Daemon) reloadFault() string {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	return d.lastFailed
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
