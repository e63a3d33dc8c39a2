package torture

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/reader"
)

// read has one reader for each record until stop.
func (w *world) read() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var readers sync.WaitGroup
	for i := range policies {
		readers.Go(func() { w.readRecord(ctx, record(i)) })
	}
	return func() {
		w.t.Helper()
		cancel()
		readers.Wait()
		if w.reads.Load() == 0 {
			w.t.Error("the readers never read")
		}
	}
}

// readRecord uses whatever is published every few milliseconds. Only the provider's clear no counts: that Vault or
// ElevenLabs cannot be reached is a part of the torture.
func (w *world) readRecord(ctx context.Context, path string) {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	keys, err := reader.New(reader.Options{Address: w.addrs[len(w.addrs)-1], Path: path, Token: func(context.Context) (string, error) { return w.vaults[0].RootToken, nil }})
	if err != nil {
		w.violated("making a reader: %v", err)
		return
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		key, err := keys.Read(ctx)
		if err != nil {
			continue
		}
		switch w.ask(client, key.Reveal()) {
		case http.StatusOK:
			w.reads.Add(1)
		case http.StatusUnauthorized:
			if stillPublished(ctx, keys, key) && !w.wasLate(key.ID) {
				w.violated("at %s a reader of %s was refused with key %s, and %s still holds it", time.Now(), path, key.ID, path)
				return
			}
		}
	}
}

// stillPublished asks until Vault answers: a reader that read just before a rotation's end may be late.
func stillPublished(ctx context.Context, keys *reader.Reader, refused reader.Key) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := keys.Read(ctx); err == nil {
			return now.ID == refused.ID
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
