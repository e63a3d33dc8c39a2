package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/rekeyd/rekeyd/internal/daemon"
)

// rename is `rekeyd rename`: for a rename that was undone, or one that the daemon cannot tell by itself.
func (a app) rename(ctx context.Context, args []string) error {
	f := a.flags("rename")
	asJSON := f.Bool("json", false, "write JSON")
	names, err := a.parse(f, args, 2)
	switch {
	case err != nil:
		return err
	case len(names) < 2:
		return usageError{errors.New("rekeyd rename: name the policy that has the ledger entry, and the one that is to have it, such as: rekeyd rename speech tts-prod")}
	}
	d, s, err := a.working(names[1:])
	if err != nil {
		return err
	}
	return a.each(ctx, s, names[1:], *asJSON, func(ctx context.Context, name string) (daemon.Outcome, string, error) {
		out, err := d.Rename(ctx, names[0], name)
		text := fmt.Sprintf("%s: it has the ledger entry of %s now", name, names[0])
		if out.KeyID != "" {
			text += "; the key is " + out.KeyID
		}
		return out, text, err
	})
}
