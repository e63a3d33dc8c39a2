package elevenlabs

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestANameOfCommasHidesNoKey lists a key whose name has more commas than a listing may have values.
func TestANameOfCommasHidesNoKey(t *testing.T) {
	name := strings.Repeat(",", 300_000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"service-accounts":[{"service_account_user_id":"a","api-keys":[{"key_id":"k","name":"` + name + `"}]}]}`))
	}))
	t.Cleanup(s.Close)
	got, err := newClient(t, s.URL, nil).ServiceAccounts(t.Context())
	if err != nil || len(got) != 1 || len(got[0].Keys) != 1 || got[0].Keys[0].Name != name {
		t.Errorf("%v: %d accounts", err, len(got))
	}
}
