package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rekeyd/rekeyd/config"
)

// settle is how long the policy file must have been left alone, and within which several reasons are one reload.
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

// reload reads the policies again. Where nobody asked for it, a text that is already in force is not loaded again,
// and a fault that was already told is not told again.
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
			d.log.Error("policies not reloaded, the old ones stay in force", "err", err)
		}
		d.lastFailed = err.Error()
		return 0, fmt.Errorf("reloading policies: %w", err)
	}
	d.lastFailed = ""
	d.log.Info("policies reloaded", "policies", len(c.Policies))
	return len(c.Policies), nil
}

// watchFolder watches the folder of the policy file and not the file: an editor replaces it, and Kubernetes swaps a
// link beside it. It is nil where policies come from the environment.
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

// reloadLoop reloads when it is asked to or when something in the folder changed.
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
			// A ConfigMap's file is a link to ..data/file. Whatever else lies in the folder must not keep us waiting.
			if name := filepath.Base(e.Name); name == file || name == "..data" {
				quiet.Reset(settle)
			}
		case err := <-errs:
			d.log.Warn("policy file cannot be watched well; send SIGHUP after changes", "err", err)
		case <-quiet.C:
			_, _ = d.reload(ctx, asked) // logged and counted there
			asked = false
		}
	}
}
