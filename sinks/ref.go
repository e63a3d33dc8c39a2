// Package sinks holds the stores of records and ledger: HashiCorp Vault's KV version 2 engine, and files. Both implement
// ledger.Store and pass one contract test suite.
package sinks

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// validRef refuses a reference that could resolve to another document: Vault's client and file systems both resolve dots
// and double slashes.
func validRef(op string, ref ledger.Ref) error {
	for _, part := range []string{ref.Mount, ref.Path} {
		if err := validPath(part); err != nil {
			return &ledger.Error{Op: op, Reason: ledger.FailureSinkError, Err: err,
				Advice: "correct the mount and path"}
		}
	}
	return nil
}

func validPath(p string) error {
	if strings.ContainsFunc(p, func(r rune) bool { return unicode.IsControl(r) || r == '\\' || r == unicode.ReplacementChar }) {
		return fmt.Errorf("%q has a control character, a backslash or broken UTF-8", p)
	}
	for segment := range strings.SplitSeq(p, "/") {
		switch segment {
		case "":
			return errors.New("mount or path has an empty segment")
		case ".", "..":
			return fmt.Errorf("%q has the segment %q", p, segment)
		}
	}
	return nil
}
