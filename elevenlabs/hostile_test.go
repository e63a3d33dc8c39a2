package elevenlabs

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/hostile"
	"github.com/rekeyd/rekeyd/internal/secret"
)

func TestHostileServers(t *testing.T) {
	hostile.Run(t, hostile.Client{
		Writes: 1, Bytes: 384 << 20, Secrets: []string{adminKey, "sk_probed_key"},
		Calls: func(t *testing.T, to hostile.Target) []func() error {
			fresh := func() *Client { return newClient(t, to.URL, func(o *Options) { o.Timeout = 500 * time.Millisecond }) }
			return []func() error{
				func() error { _, err := fresh().ServiceAccounts(t.Context()); return err },
				func() error { _, err := fresh().Keys(t.Context(), "a"); return err },
				func() error { _, err := fresh().CreateKey(t.Context(), "a", "n", Settings{}); return err },
				func() error { return fresh().UpdateKey(t.Context(), "a", "k", Update{Name: "n", Enabled: new(false)}) },
				func() error { return fresh().DeleteKey(t.Context(), "a", "k") },
				func() error { _, err := fresh().Probe(t.Context(), secret.New("sk_probed_key")); return err },
			}
		},
	})
}
