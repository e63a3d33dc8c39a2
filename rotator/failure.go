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
	reason ledger.Reason
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
	return &stageError{stage: stage, reason: ReasonOf(err), err: err}
}

func failedFor(stage ledger.Stage, reason ledger.Reason, format string, args ...any) *stageError {
	return &stageError{stage: stage, reason: reason, err: fmt.Errorf(format, args...)}
}

var (
	errClaimLost  = errors.New("another replica took over the claim")
	errClaimStale = errors.New("the claim was not renewed in time, so nothing more is written under it")
)

// advised adds what a person can do to the text of an error, unless that has it.
func advised(text string, err error, reason ledger.Reason) string {
	if errors.As(err, new(*ledger.Error)) {
		return text
	}
	return ledger.Advise(text, reason)
}

// message is the text of an error for ledger and display.
func message(err error, reason ledger.Reason) string {
	return advised(ledger.Shorten(strings.TrimSpace(err.Error())), err, reason)
}

// ReasonOf classifies an error of a remote.
func ReasonOf(err error) ledger.Reason {
	if e := (*ledger.Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	for _, c := range []struct {
		is     error
		reason ledger.Reason
	}{
		{errClaimLost, ledger.ReasonClaimLost},
		{errClaimStale, ledger.ReasonClaimLost},
		{ledger.ErrConflict, ledger.ReasonSinkConflict},
		{elevenlabs.ErrInvalidKey, ledger.ReasonAdminKeyRefused},
		{elevenlabs.ErrMissingPermissions, ledger.ReasonMissingPermissions},
		{elevenlabs.ErrKeyLimit, ledger.ReasonKeyLimit},
		{elevenlabs.ErrSettingRefused, ledger.ReasonInvalidRequest},
		{elevenlabs.ErrForbidden, ledger.ReasonForbidden},
		{elevenlabs.ErrNotFound, ledger.ReasonNotFound},
		{elevenlabs.ErrRateLimited, ledger.ReasonRateLimited},
		{elevenlabs.ErrInvalidRequest, ledger.ReasonInvalidRequest},
		{elevenlabs.ErrServer, ledger.ReasonAPIError},
		{elevenlabs.ErrBadAnswer, ledger.ReasonBadAnswer},
		{elevenlabs.ErrUnreachable, ledger.ReasonAPIUnreachable},
		{context.Canceled, ledger.ReasonInterrupted},
		{context.DeadlineExceeded, ledger.ReasonInterrupted},
	} {
		if errors.Is(err, c.is) {
			return c.reason
		}
	}
	return ledger.ReasonOther
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
