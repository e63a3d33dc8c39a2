package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// stageError is why one stage of a rotation did not come to its end.
type stageError struct {
	stage  Stage
	reason Reason
	err    error
	// counted: it is in the metrics already, however often it is settled again.
	counted bool
}

func (e *stageError) Error() string { return fmt.Sprintf("%s: %v", e.stage, e.err) }
func (e *stageError) Unwrap() error { return e.err }

func failed(stage Stage, err error) *stageError {
	if se := (*stageError)(nil); errors.As(err, &se) {
		return se
	}
	return &stageError{stage: stage, reason: reasonOf(err), err: err}
}

func failedFor(stage Stage, reason Reason, format string, args ...any) *stageError {
	return &stageError{stage: stage, reason: reason, err: fmt.Errorf(format, args...)}
}

var (
	errClaimLost  = errors.New("another replica took the claim over")
	errClaimStale = errors.New("the claim was not renewed in time, so nothing more is written under it")
)

// reasonOf gives an error of a remote party its word.
func reasonOf(err error) Reason {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	for _, c := range []struct {
		is     error
		reason Reason
	}{
		{errClaimLost, ReasonClaimLost},
		{errClaimStale, ReasonClaimLost},
		{ErrConflict, ReasonSinkConflict},
		{elevenlabs.ErrInvalidKey, ReasonAdminKeyRefused},
		{elevenlabs.ErrMissingPermissions, ReasonMissingPermissions},
		{elevenlabs.ErrKeyLimit, ReasonKeyLimit},
		{elevenlabs.ErrForbidden, ReasonForbidden},
		{elevenlabs.ErrNotFound, ReasonNotFound},
		{elevenlabs.ErrRateLimited, ReasonRateLimited},
		{elevenlabs.ErrInvalidRequest, ReasonInvalidRequest},
		{elevenlabs.ErrServer, ReasonAPIError},
		{elevenlabs.ErrBadAnswer, ReasonBadAnswer},
		{elevenlabs.ErrUnreachable, ReasonAPIUnreachable},
		{context.Canceled, ReasonInterrupted},
		{context.DeadlineExceeded, ReasonInterrupted},
	} {
		if errors.Is(err, c.is) {
			return c.reason
		}
	}
	return ReasonOther
}

// sinkOutage reports that the store as a whole does not serve.
func sinkOutage(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.Outage
}

// maybeWritten reports that a store's write may have happened although it failed.
func maybeWritten(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.MaybeApplied
}

const maxBackoff = time.Hour

// backoff returns how long to wait after the n-th failure in a row: doubling from base to an hour, with jitter (a
// fraction of 0 to 1) so that policies which failed together do not come back together.
func backoff(base time.Duration, n int, jitter float64) time.Duration {
	d := max(base, time.Second)
	for i := 1; i < n && d < maxBackoff; i++ {
		d *= 2
	}
	d = min(d, maxBackoff)
	return d - time.Duration(jitter*float64(d)/2)
}

func retryAfter(err error) time.Duration {
	if e := (*elevenlabs.Error)(nil); errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

const maxMessage = 300

// shorten bounds what of an error is kept in the ledger and shown.
func shorten(s string) string {
	if r := []rune(s); len(r) > maxMessage {
		return string(r[:maxMessage-1]) + "…"
	}
	return s
}
