package events

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/hostile"
	"github.com/rekeyd/rekeyd/internal/secret"
)

func TestHostileReceivers(t *testing.T) {
	hostile.Run(t, hostile.Client{
		Writes: 1, Bytes: 192 << 20, Secrets: []string{signingSecret, "path-that-is-secret", "v1="}, HTTP2: true, AnyBody: true,
		Calls: func(t *testing.T, to hostile.Target) []func() error {
			s := New(Options{URL: to.URL + "/path-that-is-secret", Secret: func() (secret.Secret, error) { return secret.New(signingSecret), nil }})
			s.client.Timeout = 500 * time.Millisecond
			if to.Authority != nil {
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(to.Authority)
				transport := s.client.Transport.(*http.Transport)
				transport.TLSClientConfig, transport.ForceAttemptHTTP2 = &tls.Config{RootCAs: roots}, true
			}
			return []func() error{func() error { _, _, err := s.try(t.Context(), []byte("{}")); return err }}
		},
	})
}
