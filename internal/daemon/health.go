package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/sinks"
)

// alive returns an error when a reconcile loop stands still. A loop whose attempts fail is alive: a restart ends no
// outage of a remote.
func (d *Daemon) alive(now time.Time) error {
	limit := 5*d.cfg.Env.ReconcileInterval + d.cfg.Env.APITimeout + time.Minute
	for _, ws := range d.rotator.Snapshot().Workspaces {
		if !ws.LastTry.IsZero() && now.Sub(ws.LastTry) > limit {
			return fmt.Errorf("no attempt to list workspace %s since %s", ws.Name, ws.LastTry.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// ready returns why the daemon cannot do its work. Vault comes first: without it nothing is read either.
func (d *Daemon) ready(ctx context.Context) error {
	if err := askVault(ctx, d.vault); err != nil {
		return err
	}
	return d.rotator.Ready()
}

// vaultReady bounds how long a readiness probe waits for Vault.
const vaultReady = 2 * time.Second

func askVault(ctx context.Context, vault *sinks.Vault) error {
	if vault == nil {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, vaultReady)
	defer cancel()
	err := vault.Ready(short)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("no answer from Vault within %s; check whether it is overloaded or a firewall drops its packets", vaultReady)
	}
	return err
}
