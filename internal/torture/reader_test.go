package torture

import (
	"context"
	"net/http"
	"sync"
	"time"
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
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id, secret := w.published(ctx, path)
		if secret == "" {
			continue
		}
		switch w.ask(client, secret) {
		case http.StatusOK:
			w.reads.Add(1)
		case http.StatusUnauthorized:
			if w.stillPublished(ctx, path, id) {
				w.violated("at %s a reader of %s was refused with key %s, and %s still holds it", time.Now(), path, id, path)
				return
			}
		}
	}
}

func (w *world) published(ctx context.Context, path string) (id, secret string) {
	s, err := w.root.KVv2("secret").Get(ctx, path)
	if err != nil {
		return "", ""
	}
	id, _ = s.Data["key_id"].(string)
	secret, _ = s.Data["api_key"].(string)
	return id, secret
}

// stillPublished asks until Vault answers: a reader that read just before a rotation's end may be late.
func (w *world) stillPublished(ctx context.Context, path, id string) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, secret := w.published(ctx, path); secret != "" {
			return now == id
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
