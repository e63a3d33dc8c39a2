package main

import (
	"context"
	"fmt"

	"github.com/rekeyd/rekeyd/internal/daemon"
)

// rename is `rekeyd rename`: for a rename that was undone, or one that the daemon cannot tell by itself.
func (a app) rename(ctx context.Context, o options, names []string) error {
	d, s, err := a.working(names[1:])
	if err != nil {
		return err
	}
	return a.each(ctx, s, names[1:], o.format, func(ctx context.Context, name string) (daemon.Outcome, string, error) {
		out, err := d.Rename(ctx, names[0], name)
		text := fmt.Sprintf("%s: it has the ledger entry of %s now", name, names[0])
		if out.KeyID != "" {
			text += "; the key is " + out.KeyID
		}
		return out, text, err
	})
}
