package sinks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

const maxMessage = 300 // characters of a remote's message

// failure makes the error of an unsuccessful answer. A write counts as possibly applied unless Vault is known to give the
// answer before it writes.
func (v *Vault) failure(ctx context.Context, op string, a answer, writes bool) error {
	if own, ok := errors.AsType[*ledger.Error](a.fault); ok {
		return fmt.Errorf("%s: %w", op, own) // the login that came before the call
	}
	if a.fault != nil {
		return v.faultError(ctx, op, a, writes)
	}
	e := &ledger.Error{Op: op, Reason: ledger.FailureSinkError, Err: v.message(a)}
	switch {
	case redirected(a.status), a.status == 472, a.status == 473, a.says("local node not active"), a.status == http.StatusPreconditionFailed:
		e.Reason, e.Outage = ledger.FailureSinkStandby, true
	case a.says(" is sealed"): // OpenBao seals namespaces too
		e.Reason, e.Outage = ledger.FailureSinkSealed, true
	case a.status == http.StatusTooManyRequests:
		e.Reason, e.Outage = ledger.FailureSinkRateLimited, true
	case a.status == http.StatusRequestEntityTooLarge, a.says("too large"), a.says("JSON ") && a.says(" exceeds allowed "):
		e.Reason, e.Advice = ledger.FailureSinkTooLarge, "remove fields from the record, or raise the listener's limits"
	case a.status == http.StatusBadGateway, a.status == http.StatusServiceUnavailable, a.status == http.StatusGatewayTimeout:
		e.Reason, e.Outage, e.MaybeApplied = ledger.FailureSinkUnreachable, true, writes
		e.Advice = "check that Vault runs behind the proxy or load balancer at VAULT_ADDR"
	case a.status >= 500:
		e.MaybeApplied, e.Advice = writes, "see Vault's server log"
	case a.status < 300:
		e.MaybeApplied, e.Err = writes, errors.New("the answer is not that of Vault's KV version 2 engine")
	}
	return e
}

// faultError is the error of a call without a complete answer.
func (v *Vault) faultError(ctx context.Context, op string, a answer, writes bool) error {
	maybe := writes && !neverSent(a.fault)
	if ctx.Err() != nil && !maybe {
		return ctx.Err()
	}
	e := &ledger.Error{Op: op, Outage: true, MaybeApplied: maybe, Err: v.clean(a.fault)}
	var long *http.MaxBytesError
	switch {
	case ctx.Err() != nil:
		e.Reason, e.Outage, e.Err = ledger.FailureSinkUnreachable, false, ctx.Err()
	case isTLS(a.fault), strings.Contains(a.fault.Error(), "tls: "): // an alert may come after the request was sent
		e.Reason = tlsFault(a.fault)
	case errors.Is(a.fault, context.DeadlineExceeded):
		e.Reason, e.Err = ledger.FailureSinkTimeout, fmt.Errorf("no answer within %s", v.opt.Timeout)
	case errors.As(a.fault, new(*net.DNSError)):
		e.Reason = ledger.FailureSinkDNS
	case errors.As(a.fault, &long):
		e.Reason, e.Outage, e.Err = ledger.FailureSinkError, false, fmt.Errorf("the answer is longer than %d bytes", long.Limit)
	case errors.Is(a.fault, errNotVault):
		e.Reason, e.Err = ledger.FailureSinkUnreachable, errors.New("what answers there is not Vault")
		e.Advice = "check host, port and path in VAULT_ADDR"
	case a.status != 0:
		e.Reason, e.Outage = ledger.FailureSinkError, false
	default:
		e.Reason = ledger.FailureSinkUnreachable
	}
	return e
}

func tlsFault(cause error) ledger.Failure {
	switch {
	case errors.As(cause, new(x509.HostnameError)):
		return ledger.FailureSinkTLSName
	case errors.As(cause, new(x509.UnknownAuthorityError)):
		return ledger.FailureSinkTLSCA
	default:
		return ledger.FailureSinkTLS
	}
}

// message is Vault's status and errors. It leaves out a body that is not Vault's JSON, such as a proxy's page.
func (v *Vault) message(a answer) error {
	text := fmt.Sprintf("Vault answers %d", a.status)
	if len(a.errs) > 0 {
		text += ": " + strings.Join(a.errs, "; ")
	}
	return v.clean(errors.New(text))
}

// clean reduces an error to one bounded line without secrets. It drops the cause, whose text could be printed.
func (v *Vault) clean(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL may carry credentials, and adds nothing to the operation
	}
	return errors.New(v.opt.Redactor.Clean(err.Error(), maxMessage))
}

// neverSent reports whether a fault came before any byte of the request could be sent.
func neverSent(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial" || errors.As(err, new(unsent)) || errors.As(err, new(*net.DNSError)) || isTLS(err)
}

// isTLS reports whether the connection failed before it could carry a request.
func isTLS(err error) bool {
	return errors.Is(err, errPlainHTTP) || errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError)) ||
		// net/http exports no type for this error.
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
