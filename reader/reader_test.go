package reader_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/reader"
)

func TestKey(t *testing.T) {
	w := newWorld(t)
	first, secret := w.rotate()
	r := w.reader()
	k := key(t, r)
	if k.ID != first || k.Reveal() != secret || k.Version != 1 || !k.RotatedAt.Equal(utc("2026-03-01T12:00:00Z")) || k.PreviousID != "" || !k.PreviousValidUntil.IsZero() {
		t.Errorf("the first key is %+v", k)
	}
	second, _ := w.rotate()
	if k = key(t, r); k.ID != first || w.reads.Load() != 1 {
		t.Errorf("not the key at hand but %s, after %d reads", k.ID, w.reads.Load())
	}
	k, err := r.Read(t.Context())
	if err != nil || k.ID != second || k.PreviousID != first || !k.PreviousValidUntil.Equal(utc("2026-03-02T12:00:00Z")) || k.Version != 2 {
		t.Errorf("read %+v, %v", k, err)
	}
	if got := key(t, r); got.ID != second {
		t.Errorf("the key at hand is %s, not the one that was read", got.ID)
	}
	other := w.reader(func(o *reader.Options) { o.Mount, o.Path, o.Field = "/secret/", "/"+path+"/", "key_id" })
	if k := key(t, other); k.Reveal() != second {
		t.Errorf("another field of the record: %s", k.Reveal())
	}
}

func TestErrors(t *testing.T) {
	w := newWorld(t)
	w.rotate()
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	type options = reader.Options
	for _, tt := range []struct {
		name   string
		change func(*options)
		is     error
		says   string
	}{
		{"no field", func(o *options) { o.Field = "other" }, reader.ErrNoKey, "reading secret/" + path},
		{"no right to another record", func(o *options) { o.Path = "elevenlabs/other" }, reader.ErrDenied, "permission denied"},
		{"no record", func(o *options) {
			o.Path, o.Token = "elevenlabs/other", func(context.Context) (string, error) { return w.vault.RootToken, nil }
		}, reader.ErrNoKey, ""},
		{"no mount", func(o *options) {
			o.Mount, o.Token = "none", func(context.Context) (string, error) { return w.vault.RootToken, nil }
		}, nil, "HTTP 404: no handler"},
		{"no token", func(o *options) { o.Token = nil }, reader.ErrDenied, ""},
		{"a token that fails", func(o *options) {
			o.Token = func(context.Context) (string, error) { return "", errors.New("no such file") }
		}, nil, "obtaining a token: no such file"},
		{"no Vault", func(o *options) { o.Address = "http://127.0.0.1:1" }, nil, "connection refused"},
		{"not Vault", func(o *options) { o.Address = page.URL }, nil, "HTTP 404: reading the answer"},
		{"time out", func(o *options) { o.Timeout = time.Nanosecond }, context.DeadlineExceeded, ""},
	} {
		r := w.reader(tt.change)
		_, err := r.Key(t.Context())
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), w.token) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, again := r.Key(t.Context()); again == nil {
			t.Errorf("%s: no error the second time", tt.name)
		}
	}
	if err := w.kv.Delete(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := w.reader().Read(t.Context()); !errors.Is(err, reader.ErrNoKey) {
		t.Errorf("a deleted record: %v", err)
	}
	for name, o := range map[string]options{
		"no address": {Path: path}, "no path": {Address: "https://vault", Path: "/"}, "no scheme": {Address: "vault:8200", Path: path},
		"a password": {Address: "https://me:hidden@vault", Path: path},
	} {
		if _, err := reader.New(o); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoTokenFollowsARedirect of a standby, or of what only looks like Vault.
func TestNoTokenFollowsARedirect(t *testing.T) {
	w := newWorld(t)
	w.rotate()
	redirect := httptest.NewServer(http.RedirectHandler(w.vault.Addr+"/v1/secret/data/"+path, http.StatusTemporaryRedirect))
	defer redirect.Close()
	if k, err := w.reader(func(o *reader.Options) { o.Address = redirect.URL }).Read(t.Context()); err == nil || w.reads.Load() != 1 {
		t.Errorf("a redirect was followed: %s, %d requests", k.ID, w.reads.Load())
	}
}

func TestNothingPrintsTheKey(t *testing.T) {
	w := newWorld(t)
	_, secret := w.rotate()
	k := key(t, w.reader())
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{fmt.Sprintf("%v %+v %#v", k, k, k), string(text)} {
		if strings.Contains(said, secret) || strings.Contains(said, w.token) {
			t.Errorf("%s", said)
		}
	}
	if !strings.Contains(string(text), k.ID) {
		t.Errorf("the key's JSON lacks its id: %s", text)
	}
}

// bubble runs f in simulated time, with a Vault in this process that holds the key a.
func bubble(t *testing.T, f func(t *testing.T, vault *memkv.Server, r *reader.Reader, reads func() int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		vault, reads := memkv.New("token", "secret"), 0
		vault.Before(func(*http.Request) error { reads++; return nil })
		publish(t, vault, "a")
		r, err := reader.New(reader.Options{
			Address: "http://vault", Token: func(context.Context) (string, error) { return "token", nil }, Path: path,
			Client: &http.Client{Transport: vault},
		})
		if err != nil {
			t.Fatal(err)
		}
		f(t, vault, r, func() int { n := reads; reads = 0; return n })
	})
}

func publish(t *testing.T, vault *memkv.Server, id string) {
	t.Helper()
	if _, err := vault.Put("secret/"+path, map[string]any{"api_key": "secret-" + id, "key_id": id}); err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass, and the read of the background end.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in simulated time
	synctest.Wait()
}

func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, vault *memkv.Server, r *reader.Reader, reads func() int) {
		key(t, r)
		publish(t, vault, "b")
		pass(4*time.Minute - time.Second)
		if k := key(t, r); k.ID != "a" || reads() != 1 {
			t.Errorf("%s is read again before four fifths of the interval", k.ID)
		}
		pass(time.Minute + 2*time.Second)
		if k := key(t, r); k.ID != "a" {
			t.Errorf("%s: a read in the background was waited for", k.ID)
		}
		pass(0)
		if k := key(t, r); k.ID != "b" || reads() != 1 {
			t.Errorf("%s after the interval", k.ID)
		}
		publish(t, vault, "c")
		pass(24 * time.Hour) // idle
		if k := key(t, r); k.ID != "c" {
			t.Errorf("%s after a day: the read was not waited for", k.ID)
		}
	})
}

// TestOutage keeps the key at hand, and asks at growing intervals.
func TestOutage(t *testing.T) {
	bubble(t, func(t *testing.T, vault *memkv.Server, r *reader.Reader, reads func() int) {
		key(t, r)
		vault.Seal()
		reads()
		for range 3600 {
			if k := key(t, r); k.ID != "a" {
				t.Fatalf("the key is %s", k.ID)
			}
			pass(time.Second)
		}
		if n := reads(); n < 100 || n > 160 { // every 24 to 30 seconds after the first five minutes
			t.Errorf("%d reads in an hour without Vault", n)
		}
		vault.Unseal()
		publish(t, vault, "b")
		pass(30 * time.Second)
		key(t, r)
		pass(0)
		if k := key(t, r); k.ID != "b" {
			t.Errorf("%s after Vault was unsealed", k.ID)
		}
	})
}

// TestNoKeyYet fails at once between reads, and reads at most once at a time.
func TestNoKeyYet(t *testing.T) {
	bubble(t, func(t *testing.T, vault *memkv.Server, r *reader.Reader, reads func() int) {
		vault.Seal()
		for range 100 {
			if _, err := r.Key(t.Context()); err == nil {
				t.Fatal("a sealed Vault gave a key")
			}
		}
		if n := reads(); n != 1 {
			t.Errorf("%d reads", n)
		}
		vault.Unseal()
		pass(time.Second)
		if k := key(t, r); k.ID != "a" {
			t.Errorf("the key is %s", k.ID)
		}
	})
}

func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T, vault *memkv.Server, r *reader.Reader, _ func() int) {
		ctx, cancel := context.WithCancel(t.Context())
		var said []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for k, err := range r.Watch(ctx) {
				if err != nil {
					said = append(said, "error")
					continue
				}
				said = append(said, k.ID)
			}
		}()
		pass(time.Hour)
		publish(t, vault, "a") // as the fence of a takeover does
		pass(time.Hour)
		publish(t, vault, "b")
		pass(5 * time.Minute)
		vault.Seal()
		pass(5 * time.Minute)
		vault.Unseal()
		publish(t, vault, "c")
		if _, err := r.Read(t.Context()); err != nil { // another caller's read is noticed at once
			t.Error(err)
		}
		pass(0)
		cancel()
		<-done
		got := strings.Join(said, " ")
		if want := []string{"a b", "c"}; !strings.HasPrefix(got, want[0]+" error") || !strings.HasSuffix(got, "error "+want[1]) || strings.Count(got, "a") != 1 {
			t.Errorf("%s", got)
		}
		for k, err := range r.Watch(t.Context()) { // that a loop may leave
			if err != nil || k.ID != "c" {
				t.Errorf("%s, %v", k.ID, err)
			}
			break
		}
	})
}

// TestSingleFlight has 200 callers refused at once: Vault is asked once for all of them.
func TestSingleFlight(t *testing.T) {
	bubble(t, func(t *testing.T, vault *memkv.Server, r *reader.Reader, reads func() int) {
		refused := key(t, r)
		publish(t, vault, "b")
		reads()
		reread := func(want string) {
			var callers sync.WaitGroup
			for range 200 {
				callers.Go(func() {
					if k, err := r.Reread(t.Context(), refused); err != nil || k.ID != want {
						t.Errorf("%s, %v", k.ID, err)
					}
				})
			}
			callers.Wait()
		}
		reread("b")
		if n := reads(); n != 1 {
			t.Errorf("%d reads for one new key", n)
		}
		refused = key(t, r)
		for range 10 {
			reread("b") // the record still holds it
		}
		if n := reads(); n < 1 || n > 2 {
			t.Errorf("%d reads within a second for a key that does not change", n)
		}
		pass(time.Second)
		publish(t, vault, "c")
		reread("c")
	})
}

// TestACallerGivesUp without taking the read from the others.
func TestACallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := memkv.New("token", "secret")
		vault.Before(func(*http.Request) error { pass(5 * time.Second); return nil })
		publish(t, vault, "a")
		r, err := reader.New(reader.Options{Address: "http://vault", Path: path, Client: &http.Client{Transport: vault},
			Token: func(context.Context) (string, error) { return "token", nil }})
		if err != nil {
			t.Fatal(err)
		}
		patient := make(chan reader.Key)
		go func() { k, _ := r.Key(t.Context()); patient <- k }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Key(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who gives up is told %v", err)
		}
		if k := <-patient; k.ID != "a" {
			t.Errorf("who waits is given %q", k.ID)
		}
	})
}
