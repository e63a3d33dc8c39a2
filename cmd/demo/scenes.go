package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// voice is what the policy tts-staging probes.
const voice = "narrator"

// scenes are what happens to keys in practice, played once: a resource that was shared with the key and not with its account, and
// a secret that is found where it should not be.
type scenes struct {
	sim        *elevensim.Server
	url, token string // of the daemon
	say        func(string)
	events     chan rotator.Event
}

// observe passes an event on to the scenes; it does not block.
func (s *scenes) observe(e rotator.Event) {
	select {
	case s.events <- e:
	default:
	}
}

func (s *scenes) play(ctx context.Context) {
	if s.await(ctx, func(e rotator.Event) bool { return e.Policy == "tts-staging" && e.Type == rotator.EventRotated }) {
		s.probe(ctx)
	}
	if s.await(ctx, func(e rotator.Event) bool { return e.Policy == "tts-prod" && e.Type == rotator.EventRotated }) {
		s.leak(ctx)
	}
}

// await reports whether an event came before ctx ended.
func (s *scenes) await(ctx context.Context, wanted func(rotator.Event) bool) bool {
	for {
		select {
		case e := <-s.events:
			if wanted(e) {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// probe shares the voice with the key in use alone, until a new key was refused for it.
func (s *scenes) probe(ctx context.Context) {
	s.sim.UnshareVoice(voice, "svcacc_speech")
	s.sim.ShareVoice(voice, s.current("tts-staging").ID)
	s.say("-- A voice is shared with the key of tts-staging, no longer with its service account. The next key cannot read it:")
	if s.await(ctx, func(e rotator.Event) bool {
		return e.Type == rotator.EventFailed && e.Reason == ledger.FailureProbeFailed
	}) {
		s.say("-- Readers keep the old key. The voice is shared with the service account again:")
		s.sim.ShareVoice(voice, "svcacc_speech")
	}
}

// leak reports the secret in use, as `rekeyd leaked --rotate` does.
func (s *scenes) leak(ctx context.Context) {
	s.say("-- A secret is found in a public repository, and reported as with rekeyd leaked --rotate:")
	body, err := json.Marshal(map[string]any{"secret": s.current("tts-prod").Secret, "rotate": true})
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/v1/leaked", bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := (&http.Client{Timeout: 15 * time.Second}).Do(req)
	if err != nil {
		s.say("-- " + err.Error())
		return
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what came is shown
	s.say(fmt.Sprintf("-- %s", bytes.TrimSpace(answer)))
}

// current is the newest key of a policy.
func (s *scenes) current(policy string) elevensim.Key {
	var newest elevensim.Key
	for _, a := range s.sim.State() {
		for _, k := range a.Keys {
			if strings.Contains(k.Name, "."+policy+".") && !k.Disabled && !k.Deleted() && !k.CreatedAt.Before(newest.CreatedAt) {
				newest = k
			}
		}
	}
	return newest
}
