package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// TestTheMainJob follows two rotations and the whole life of the first key.
func TestTheMainJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	foreignID, foreignSecret := w.sim.AddKey(account, "of somebody else")
	w.put(w.sink(), map[string]any{"team": "speech"})
	w.policy("@every 4s")
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Delay, Operation: "listServiceAccounts", Nth: 1, Duration: elevensim.Duration(2 * time.Second)}}})
	d := w.start(nil)
	for series, want := range map[string]string{
		`rekeyd_rotations_total{policy="tts-prod",result="success"}`:        "0",
		`rekeyd_rotations_total{policy="tts-prod",result="failure"}`:        "0",
		`rekeyd_rotation_failures_total{reason="key_limit",stage="create"}`: "0",
		`rekeyd_keys{policy="tts-prod",state="current"}`:                    "0",
		`rekeyd_last_rotation_timestamp_seconds{policy="tts-prod"}`:         "",
		`rekeyd_rotation_duration_seconds_count{result="success"}`:          "0",
		`rekeyd_policies`:                      "1",
		`rekeyd_config_last_reload_successful`: "1",
	} {
		if got := d.metric(series); got != want {
			t.Errorf("before: %s is %q, want %q", series, got, want)
		}
	}

	first := w.published("")
	stop := w.read()
	second := w.published(first)
	process.Eventually(t, process.Patience, func() error {
		if !w.gone(first) {
			return errors.New("the first key is not deleted")
		}
		return nil
	})
	stop()
	w.checkWire(first)
	w.checkOrder(first, second)

	if k := w.key(foreignID); k.Deleted() || k.Disabled || k.Secret != foreignSecret || k.Name != "of somebody else" {
		t.Errorf("the foreign key is now %+v", k)
	}
	for _, op := range []string{"updateAPIKey", "deleteAPIKey"} {
		if slices.ContainsFunc(w.history(op), func(r elevensim.Request) bool { return r.KeyID == foreignID }) {
			t.Errorf("%s was called on the foreign key", op)
		}
	}
	for _, series := range []string{
		`rekeyd_rotations_total{policy="tts-prod",result="success"}`,
		`rekeyd_requests_total{code="200",operation="create",target="elevenlabs"}`,
		`rekeyd_requests_total{code="200",operation="write",target="vault"}`,
		`rekeyd_last_rotation_timestamp_seconds{policy="tts-prod"}`,
		`rekeyd_key_created_timestamp_seconds{policy="tts-prod"}`,
		`rekeyd_last_reconcile_timestamp_seconds{workspace="default"}`,
	} {
		if got := d.metric(series); got == "" || got == "0" || got == "1" {
			t.Errorf("after: %s is %q", series, got)
		}
	}
	ledger, version := w.document("rekeyd/" + w.id + "/policies/tts-prod")
	w.heard(fmt.Sprint(ledger)) // which holds no secret either
	if version == 0 {
		t.Error("the ledger has no entry")
	}
	if got := d.metric(`rekeyd_keys{policy="tts-prod",state="foreign"}`); got != "1" {
		t.Errorf("after: %s foreign keys", got)
	}
	if status, body := d.get("/readyz"); status != http.StatusOK {
		t.Errorf("not ready: %s", body)
	}
	d.end()
}

// published waits for a record with another key than before, checks its fields, and returns the key's id.
func (w *world) published(before string) string {
	w.t.Helper()
	var record map[string]any
	process.Eventually(w.t, process.Patience, func() error {
		if record, _ = w.record(); record["key_id"] == nil || record["key_id"] == before {
			return fmt.Errorf("key_id is %v", record["key_id"])
		}
		return nil
	})
	id, _ := record["key_id"].(string)
	key := w.key(id)
	want := map[string]any{
		"api_key": key.Secret, "key_id": id, "key_name": key.Name, "policy": "tts-prod", "service_account_user_id": account,
		"rotated_at": record["rotated_at"], "team": "speech",
	}
	w.recent(record["rotated_at"], -time.Minute, time.Second)
	if before != "" {
		want["previous_key_id"], want["previous_valid_until"] = before, record["previous_valid_until"]
		w.recent(record["previous_valid_until"], -time.Minute, 3*time.Second)
	}
	if !reflect.DeepEqual(record, want) {
		w.t.Errorf("the record is %v, want %v", record, want)
	}
	return id
}

// recent checks an RFC 3339 time in UTC.
func (w *world) recent(value any, from, to time.Duration) {
	w.t.Helper()
	text, _ := value.(string)
	at, err := time.Parse("2006-01-02T15:04:05Z", text)
	if d := time.Until(at); err != nil || d < from || d > to {
		w.t.Errorf("the time %v is no recent one in UTC (%v)", value, err)
	}
}

// checkWire checks what was sent to create the key and to disable it.
func (w *world) checkWire(id string) {
	w.t.Helper()
	name := w.key(id).Name
	if !regexp.MustCompile(`^rekeyd\.[a-z0-9]{8}\.tts-prod\.[a-z0-9]{10}$`).MatchString(name) {
		w.t.Errorf("the key's name is %q", name)
	}
	want := map[string]map[string]any{
		"createAPIKey": {
			"name": name, "permissions": []any{"models_read", "text_to_speech"}, "character_limit": 100000.0,
			"allowed_ips": []any{"127.0.0.1/32", "2001:db8::/32"},
		},
		"updateAPIKey": {"name": name, "permissions": "no_update", "is_enabled": false},
	}
	for op, body := range want {
		r := w.once(op, id)
		if got := object(w.t, r.Body); !reflect.DeepEqual(got, body) {
			w.t.Errorf("%s sent %v, want %v", op, got, body)
		}
		if r.CredentialKind != "admin" || r.Status != http.StatusOK {
			w.t.Errorf("%s was sent with the key %s and answered %d", op, r.CredentialKind, r.Status)
		}
	}
}

// once returns the only applied request of that kind on the key.
func (w *world) once(operation, id string) elevensim.Request {
	w.t.Helper()
	all := slices.DeleteFunc(w.history(operation), func(r elevensim.Request) bool { return r.KeyID != id || !r.Applied })
	if len(all) != 1 {
		w.t.Fatalf("%s was done %d times on %s", operation, len(all), id)
	}
	return all[0]
}

// checkOrder checks the life of a key that was replaced.
func (w *world) checkOrder(first, second string) {
	w.t.Helper()
	steps := []elevensim.Request{w.once("createAPIKey", first), w.once("createAPIKey", second), w.once("updateAPIKey", first), w.once("deleteAPIKey", first)}
	if !slices.IsSortedFunc(steps, func(a, b elevensim.Request) int { return int(a.Seq) - int(b.Seq) }) {
		w.t.Errorf("the order of calls is %+v", steps)
	}
	if overlap := steps[2].Time.Sub(steps[1].Time); overlap < 900*time.Millisecond {
		w.t.Errorf("the old key was disabled %s after the new one was made, before its overlap was over", overlap)
	}
	if quarantine := steps[3].Time.Sub(steps[2].Time); quarantine < 900*time.Millisecond {
		w.t.Errorf("the old key was deleted %s after it was disabled, before its quarantine was over", quarantine)
	}
}

func TestARefusedCreateChangesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status       int
		code, reason string
	}{
		{http.StatusUnprocessableEntity, "validation_error", "invalid_request"},
		{http.StatusForbidden, "forbidden", "forbidden"},
		{http.StatusUnauthorized, "invalid_api_key", "admin_key_refused"},
		{http.StatusUnauthorized, "missing_permissions", "missing_permissions"},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, common.vault)
			old := w.seed()
			w.policy("@every 1h")
			w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "createAPIKey", Status: c.status, Code: c.code,
				Message: "No, and by the way the key was " + w.adminKey}}})
			before, version := w.record()
			stop := w.read()
			d := w.start(nil)
			process.Eventually(t, process.Patience, func() error {
				series := fmt.Sprintf("rekeyd_rotation_failures_total{reason=%q,stage=%q}", c.reason, "create")
				if got := d.metric(series); got == "0" || got == "" {
					return fmt.Errorf("%s is %q; failures: %s", series, got, d.metric(`rekeyd_rotations_total{policy="tts-prod",result="failure"}`))
				}
				return nil
			})
			if got := d.metric(`rekeyd_rotations_total{policy="tts-prod",result="failure"}`); got == "0" {
				t.Error("the failure is not counted for the policy")
			}
			if after, v := w.record(); v != version || !reflect.DeepEqual(before, after) {
				t.Errorf("the record has changed: version %d: %v", v, after)
			}
			if keys := w.sim.Keys(); len(keys) != 1 || keys[0].ID != old || keys[0].Disabled || keys[0].Deleted() {
				t.Errorf("the keys are now %+v", keys)
			}
			w.sim.SetFaults(elevensim.Faults{})
			w.settled(old)
			stop()
			d.end()
		})
	}
}
