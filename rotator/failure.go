package rotator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// stageError is why one stage of a rotation failed.
type stageError struct {
	stage  ledger.Stage
	reason ledger.Failure
	err    error
}

func (e *stageError) Error() string {
	return fmt.Sprintf("%s: %s", e.stage, advised(e.err.Error(), e.err, e.reason))
}

func (e *stageError) Unwrap() error { return e.err }

func failed(stage ledger.Stage, err error) *stageError {
	if se := (*stageError)(nil); errors.As(err, &se) {
		return se
	}
	return &stageError{stage: stage, reason: FailureOf(err), err: err}
}

func failedFor(stage ledger.Stage, reason ledger.Failure, format string, args ...any) *stageError {
	return &stageError{stage: stage, reason: reason, err: fmt.Errorf(format, args...)}
}

var (
	errClaimLost  = errors.New("another replica took over the claim")
	errClaimStale = errors.New("the claim was not renewed in time, so nothing more is written under it")
	// errNotDue ends a rotation that is no longer due once the claim is taken.
	errNotDue       = errors.New("no longer due")
	errStateChanged = errors.New("another process changed the policy's state meanwhile; look at its status and try again")
)

// claimLost reports whether another process wrote the entry.
func claimLost(err error) bool {
	return errors.Is(err, errClaimLost) || errors.Is(err, ledger.ErrConflict)
}

// advised adds what a person can do to the text of an error, unless that has it.
func advised(text string, err error, reason ledger.Failure) string {
	if errors.As(err, new(*ledger.Error)) {
		return text
	}
	return ledger.Advise(text, reason)
}

// message is the text of an error for ledger and display.
func message(err error, reason ledger.Failure) string {
	return advised(ledger.Shorten(strings.TrimSpace(err.Error())), err, reason)
}

// FailureOf classifies an error of a remote.
func FailureOf(err error) ledger.Failure {
	if e := (*ledger.Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	for _, c := range []struct {
		is     error
		reason ledger.Failure
	}{
		{errClaimLost, ledger.FailureClaimLost},
		{errClaimStale, ledger.FailureClaimLost},
		{ledger.ErrConflict, ledger.FailureSinkConflict},
		{elevenlabs.ErrInvalidKey, ledger.FailureAdminKeyRefused},
		{elevenlabs.ErrMissingPermissions, ledger.FailureMissingPermissions},
		{elevenlabs.ErrKeyLimit, ledger.FailureKeyLimit},
		{elevenlabs.ErrSettingRefused, ledger.FailureInvalidRequest},
		{elevenlabs.ErrForbidden, ledger.FailureForbidden},
		{elevenlabs.ErrNotFound, ledger.FailureNotFound},
		{elevenlabs.ErrRateLimited, ledger.FailureRateLimited},
		{elevenlabs.ErrInvalidRequest, ledger.FailureInvalidRequest},
		{elevenlabs.ErrServer, ledger.FailureAPIError},
		{elevenlabs.ErrBadAnswer, ledger.FailureBadAnswer},
		{elevenlabs.ErrUnreachable, ledger.FailureAPIUnreachable},
		{context.Canceled, ledger.FailureInterrupted},
		{context.DeadlineExceeded, ledger.FailureInterrupted},
	} {
		if errors.Is(err, c.is) {
			return c.reason
		}
	}
	return ledger.FailureOther
}

// backoff returns how long to wait after the n-th failure in a row. It doubles from base to an hour, with jitter (a fraction
// from 0 to 1) so that policies which failed together do not retry together.
func backoff(base time.Duration, n int, jitter float64) time.Duration {
	d := max(base, time.Second)
	for i := 1; i < n && d < plan.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, plan.MaxBackoff)
	return d - time.Duration(jitter*float64(d)/2)
}

func retryAfter(err error) time.Duration {
	if e := (*elevenlabs.Error)(nil); errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

func unknownPolicy(name string) error {
	return fmt.Errorf("there is no policy %s in the policy file", name)
}

func pausedPolicy(name string) error {
	return fmt.Errorf("policy %s is paused; set its mode to auto or manual first", name)
}
