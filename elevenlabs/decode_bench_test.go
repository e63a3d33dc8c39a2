package elevenlabs

import (
	"encoding/json"
	"fmt"
	"testing"
)

// accountsWithKeys is an answer with so many accounts, as a workspace has them after two rotations.
func accountsWithKeys(tb testing.TB, accounts int) []byte {
	tb.Helper()
	var list []map[string]any
	for i := range accounts {
		account := fmt.Sprint("svcacc_", i)
		var keys []map[string]any
		for _, id := range []string{"older", "current"} {
			keys = append(keys, map[string]any{
				"key_id": fmt.Sprint(id, "_of_", account), "name": fmt.Sprintf("rekeyd.ownerown.policy-%d.%s-id", i, id), "hint": "ab12",
				"service_account_user_id": account, "created_at_unix": 1_700_000_000, "is_disabled": id == "older", "character_count": 12,
				"permissions": []string{"text_to_speech", "voices_read"}, "allowed_ips": []string{"203.0.113.0/24"},
			})
		}
		list = append(list, map[string]any{"service_account_user_id": account, "name": account, "api-keys": keys})
	}
	text, err := json.Marshal(map[string]any{"service-accounts": list})
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

const listed = 1000 // accounts, with two keys each

// Each workspace is listed at each reconcile, so a listing is what is decoded most.
func TestDecodingAListingAllocatesNoMoreThanItDid(t *testing.T) {
	text := accountsWithKeys(t, listed)
	const most = 30 // an account, with a quarter more than was measured
	if got := testing.AllocsPerRun(5, func() { _, _ = decodeAccounts(text) }) / listed; got > most {
		t.Errorf("%.1f allocations an account, at most %d are expected", got, most)
	}
}

func BenchmarkDecodeListing(b *testing.B) {
	text := accountsWithKeys(b, listed)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := decodeAccounts(text); err != nil || len(got) != listed {
			b.Fatal(len(got), err)
		}
	}
}
