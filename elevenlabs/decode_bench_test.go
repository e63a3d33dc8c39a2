package elevenlabs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
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

// Each workspace is listed at each reconcile, so a listing is what is decoded most. Mostly nothing has changed, which costs nothing
// but the sums.
func TestDecodingAListingAllocatesNoMoreThanItDid(t *testing.T) {
	text := accountsWithKeys(t, listed)
	const most = 40 // an account, with a quarter more than was measured
	if got := testing.AllocsPerRun(5, func() { _, _ = decodeAccounts(text, new(accountList)) }) / listed; got > most {
		t.Errorf("%.1f allocations an account, at most %d are expected", got, most)
	}
	before, err := decodeAccounts(text, new(accountList))
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(5, func() { _, _ = decodeAccounts(text, before) }); got > 0 {
		t.Errorf("%.0f allocations for a listing that is as it was", got)
	}
}

// What a listing is worth does not depend on the listing before.
func TestAListingIsWhatItsTextSays(t *testing.T) {
	t.Parallel()
	decode := func(text []byte, before *accountList) *accountList {
		t.Helper()
		l, err := decodeAccounts(text, before)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := decode(accountsWithKeys(t, 5), new(accountList))
	used := bytes.Replace(accountsWithKeys(t, 5), []byte(`"character_count":12`), []byte(`"character_count":13`), 1)
	for name, text := range map[string][]byte{
		"the same":         accountsWithKeys(t, 5),
		"a key was used":   used,
		"one more":         accountsWithKeys(t, 6),
		"fewer":            accountsWithKeys(t, 3),
		"none":             []byte(`{"service-accounts": [ ]}`),
		"the first is new": bytes.Replace(accountsWithKeys(t, 5), []byte(`[{`), []byte(`[{"service_account_user_id":"new","api-keys":[]}, {`), 1),
	} {
		if got, want := decode(text, before), decode(text, new(accountList)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, alone %+v", name, got, want)
		}
	}
	if &decode(used, before).accounts[1].Keys[0] != &before.accounts[1].Keys[0] {
		t.Error("an account that did not change was decoded again")
	}
}

func BenchmarkDecodeListing(b *testing.B) {
	text := accountsWithKeys(b, listed)
	before, err := decodeAccounts(text, new(accountList))
	if err != nil {
		b.Fatal(err)
	}
	used := bytes.Replace(text, []byte(`"character_count":12`), []byte(`"character_count":13`), 1)
	for _, c := range []struct {
		name   string
		text   []byte
		before *accountList
	}{{"new", text, new(accountList)}, {"one key was used", used, before}, {"unchanged", text, before}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if got, err := decodeAccounts(c.text, c.before); err != nil || len(got.accounts) != listed {
					b.Fatal(got, err)
				}
			}
		})
	}
}
