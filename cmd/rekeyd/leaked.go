package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
)

// errNotOurs is exit status 1 without an error message: the answer on stdout says that the secret is unknown.
var errNotOurs = errors.New("no key of this installation has the secret")

// leaked is `rekeyd leaked`: whose is a secret that was found, does it still work, and, with --rotate, make it stop.
func (a app) leaked(ctx context.Context, o options, _ []string) error {
	d, s, err := a.working(nil)
	if err != nil {
		return err
	}
	found, err := a.readLeaked(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout(s.Env))
	defer cancel()
	l, err := d.Leaked(ctx, found)
	if err != nil {
		return err
	}
	if !o.format.document() {
		if err := a.print("%s\n", leakText(l)); err != nil {
			return err
		}
	}
	if l.Known && o.rotate {
		var out daemon.Outcome
		if l, out, err = d.EndLeak(ctx, l, found); err == nil && !o.format.document() {
			err = a.print("%s\n", leakEnd(l, rotated(out, true, time.Now())))
		}
	}
	if o.format.document() {
		err = errors.Join(a.document(o.format, l), err)
	}
	if err == nil && !l.Known {
		return errNotOurs
	}
	return err
}

// longestInput bounds what is read from stdin: a secret with white space around it.
const longestInput = 16 << 10

// readLeaked reads the secret: all of stdin, or one line of a terminal.
func (a app) readLeaked(ctx context.Context) (secret.Secret, error) {
	in := io.LimitReader(a.stdin, longestInput+1)
	read := func() ([]byte, error) { return io.ReadAll(in) }
	if a.isTerminal(a.stdin) {
		show, hidden := hideInput(a.stdin)
		defer show()
		prompt := "Paste the secret, and press Enter"
		if hidden {
			prompt += "; it is not shown"
			defer a.say("\n")
		}
		a.say("%s: ", prompt)
		read = func() ([]byte, error) {
			line, err := bufio.NewReader(in).ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return line, err
		}
	}
	text, err := interruptible(ctx, read)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading the secret from stdin: %w", err)
	}
	if len(text) > longestInput {
		return secret.Secret{}, usageError{fmt.Errorf("rekeyd leaked: stdin has more than %d bytes; give one secret and nothing else", longestInput)}
	}
	found, err := rotator.ParseLeaked(string(text))
	if err != nil {
		return secret.Secret{}, usageError{fmt.Errorf("rekeyd leaked: reading stdin: %w", err)}
	}
	return found, nil
}

// fromStdin refuses arguments, without repeating them.
func fromStdin(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse(c, "the secret is read from stdin only: other users and the shell's history see an argument")
	}
	return nil
}

func leakText(l rotator.Leak) string {
	key := "key"
	if l.KeyID != "" {
		key += " " + l.KeyID
	}
	switch {
	case !l.Known:
		return "unknown: " + errNotOurs.Error()
	case l.State == rotator.LeakAdmin && l.Policy == "":
		return fmt.Sprintf("the admin key of workspace %s, which no policy rotates: %s", l.Workspace, worksText(l.Works))
	case l.State == rotator.LeakAdmin:
		return fmt.Sprintf("%s: the admin key of workspace %s: %s", l.Policy, l.Workspace, worksText(l.Works))
	case l.State == rotator.LeakCurrent:
		return fmt.Sprintf("%s: the current %s, in workspace %s: %s", l.Policy, key, l.Workspace, worksText(l.Works))
	}
	return fmt.Sprintf("%s: %s in %s, in workspace %s: %s", l.Policy, key, l.State, l.Workspace, worksText(l.Works))
}

func worksText(w rotator.Works) string {
	return cmp.Or(map[rotator.Works]string{rotator.WorksYes: "works", rotator.WorksNo: "rejected"}[w], "unknown")
}

// leakEnd describes what --rotate did.
func leakEnd(l rotator.Leak, rotated string) string {
	if l.Rotation == rotator.LeakOver {
		return l.Policy + ": not rotated, since the key is disabled already; do not roll back to it"
	}
	return rotated + "; the reported secret is " + worksText(l.Works)
}
