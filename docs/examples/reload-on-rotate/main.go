// Command reload-on-rotate receives rekeyd's events and runs a command when a key was rotated, for a program that has to
// be told to read its key again:
//
//	EVENTS_SECRET=... reload-on-rotate 127.0.0.1:9000 systemctl reload speech
//
// The signature is what tells rekeyd from other clients that know the URL.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

func main() {
	secret := os.Getenv("EVENTS_SECRET")
	if len(os.Args) < 3 || secret == "" {
		log.Fatal("usage: EVENTS_SECRET=... reload-on-rotate ADDRESS COMMAND [ARGUMENT...]")
	}
	reload := func() error { return exec.Command(os.Args[2], os.Args[3:]...).Run() } //nolint:gosec,noctx // the operator's own command
	server := &http.Server{Addr: os.Args[1], Handler: handler([]byte(secret), reload), ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func handler(secret []byte, reload func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err == nil {
			err = verify(secret, r.Header.Get("Rekeyd-Signature"), body, time.Now())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		var event struct{ ID, Type, Subject string }
		if err := json.Unmarshal(body, &event); err != nil {
			http.Error(w, "not an event", http.StatusBadRequest)
			return
		}
		// The same event may come twice; to reload twice does no harm here.
		if event.Type == "rekeyd.rotated" {
			if err := reload(); err != nil {
				http.Error(w, "could not reload", http.StatusInternalServerError) // rekeyd tries again
				return
			}
			log.Printf("reloaded: the key of %s was rotated", event.Subject)
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// verify wants a signature of the body that is not older than five minutes: a recorded event is refused.
func verify(secret []byte, signature string, body []byte, now time.Time) error {
	stamp, sum, ok := strings.Cut(strings.TrimPrefix(signature, "t="), ",v1=")
	at, err := strconv.ParseInt(stamp, 10, 64)
	if !ok || err != nil {
		return errors.New("no signature")
	}
	if age := now.Sub(time.Unix(at, 0)); age > 5*time.Minute || age < -5*time.Minute {
		return errors.New("the signature is too old")
	}
	given, err := hex.DecodeString(sum)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	if err != nil || !hmac.Equal(given, mac.Sum(nil)) {
		return errors.New("the signature is wrong")
	}
	return nil
}
