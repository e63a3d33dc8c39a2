// Command events-to-alertmanager receives rekeyd's events and posts each as an alert to Alertmanager, which has receivers
// for Slack, PagerDuty, mail and the rest:
//
//	EVENTS_SECRET=... events-to-alertmanager 127.0.0.1:9001 http://127.0.0.1:9093
//
// An event is a moment, an alert is a state: the alert ends an hour after its event.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// severity is the label by which Alertmanager routes; "" for what is no event of rekeyd.
func severity(kind string) string {
	switch kind {
	case "rekeyd.key_disabled":
		return "critical"
	case "rekeyd.error", "rekeyd.failed":
		return "warning"
	case "rekeyd.rotated", "rekeyd.retired", "rekeyd.drifted":
		return "info"
	}
	return ""
}

func main() {
	secret := os.Getenv("EVENTS_SECRET")
	if len(os.Args) != 3 || secret == "" {
		log.Fatal("usage: EVENTS_SECRET=... events-to-alertmanager ADDRESS ALERTMANAGER")
	}
	server := &http.Server{Addr: os.Args[1], Handler: handler([]byte(secret), os.Args[2]), ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

type event struct {
	Source, Type, Subject string
	Time                  time.Time
	Data                  struct {
		KeyID  string `json:"key_id"`
		Reason string
	}
}

type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

func handler(secret []byte, alertmanager string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err == nil {
			err = verify(secret, r.Header.Get("Rekeyd-Signature"), body, time.Now())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		var e event
		if err := json.Unmarshal(body, &e); err != nil || severity(e.Type) == "" {
			http.Error(w, "not an event of rekeyd", http.StatusBadRequest)
			return
		}
		if err := post(r.Context(), alertmanager, alertOf(e)); err != nil {
			log.Printf("%s of %s: %v", e.Type, e.Subject, err)
			http.Error(w, "Alertmanager did not take it", http.StatusBadGateway) // rekeyd tries again
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// alertOf has the same labels for an event that comes twice, so that Alertmanager takes both for one.
func alertOf(e event) alert {
	summary := e.Type + ": policy " + e.Subject
	if e.Data.Reason != "" {
		summary += ": " + e.Data.Reason
	}
	return alert{
		Labels: map[string]string{"alertname": "RekeydEvent", "severity": severity(e.Type), "event": e.Type, "policy": e.Subject,
			"reason": e.Data.Reason, "installation": e.Source},
		Annotations: map[string]string{"summary": summary, "key_id": e.Data.KeyID, "runbook_url": "https://github.com/rekeyd/rekeyd/blob/main/docs/events.md"},
		StartsAt:    e.Time, EndsAt: e.Time.Add(time.Hour),
	}
}

func post(ctx context.Context, alertmanager string, a alert) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second) // rekeyd waits for five
	defer cancel()
	body, err := json.Marshal([]alert{a})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(alertmanager, "/")+"/api/v2/alerts", bytes.NewReader(body)) //nolint:gosec // the operator's own
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req) //nolint:gosec // as above
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the Alertmanager answers %s", resp.Status)
	}
	return nil
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
