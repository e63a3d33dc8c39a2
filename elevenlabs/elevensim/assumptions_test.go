package elevensim_test

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// An API that is not as FIDELITY.md assumes: each knob alone, beside what the same request gets without it.
func TestAnAPIThatIsNotAsAssumed(t *testing.T) {
	const manager = `{"name":"n","permissions":["user_read","service_account_write"]}`
	first := func(b *bench) map[string]any { return b.list()[0] }
	refused := func(r reply, b *bench) []any { return []any{r.status, r.code(b.t)} }
	for name, tt := range map[string]struct {
		knob elevensim.Faults
		ask  func(b *bench) any
		want string // JSON: without the knob, with it
	}{
		"codes": {elevensim.Faults{Codes: map[string]string{"invalid_api_key": "unauthorized"}}, func(b *bench) any {
			return refused(b.do("GET", "/v1/user", "sk_unknown", ""), b)
		}, `[[401,"invalid_api_key"],[401,"unauthorized"]]`},
		"codes take the field away": {elevensim.Faults{NotOffered: []string{"tts_concurrency_limit"}, Codes: map[string]string{"feature_not_available": "upgrade"}}, func(b *bench) any {
			r := b.do("POST", keysOfA, adminKey, fullKey)
			if r.status == http.StatusOK {
				return nil
			}
			var e struct {
				Detail struct{ Code, Message, Param string }
			}
			r.into(b.t, &e)
			return e.Detail
		}, `[null,{"Code":"upgrade","Message":"Refused.","Param":""}]`},
		"disabled_code": {elevensim.Faults{DisabledCode: "api_key_disabled"}, func(b *bench) any {
			c := b.create(plainKey)
			b.do("PATCH", keysOfA+"/"+c.ID, adminKey, `{"is_enabled":false}`)
			return refused(b.do("GET", "/v1/user", c.Secret, ""), b)
		}, `[[401,"invalid_api_key"],[401,"api_key_disabled"]]`},
		"refused_nth": {elevensim.Faults{RefusedNth: 2}, func(b *bench) any {
			c := b.create(plainKey)
			return []int{b.status(c.Secret, accounts), b.status(c.Secret, accounts), b.status(c.Secret, accounts), b.status(adminKey, accounts)}
		}, `[[200,200,200,200],[200,401,200,200]]`},
		"unguarded": {elevensim.Faults{Unguarded: []string{"listServiceAccounts"}}, func(b *bench) any {
			c := b.create(`{"name":"n","permissions":["user_read"]}`)
			return []int{b.status(c.Secret, accounts), b.status(c.Secret, keysOfA)}
		}, `[[401,401],[200,401]]`},
		"no_manager_keys": {elevensim.Faults{NoManagerKeys: true}, func(b *bench) any {
			return []int{b.do("POST", keysOfA, adminKey, manager).status, b.do("POST", keysOfA, adminKey, `{"name":"n","permissions":"all"}`).status}
		}, `[[200,200],[403,200]]`},
		"no_reenable": {elevensim.Faults{NoReenable: true}, func(b *bench) any {
			c, other := b.create(fullKey), b.create(plainKey)
			b.do("POST", disable, c.Secret, "")
			b.do("PATCH", keysOfA+"/"+other.ID, adminKey, `{"is_enabled":false}`)
			enable := func(id string) int { return b.do("PATCH", keysOfA+"/"+id, adminKey, `{"is_enabled":true}`).status }
			return []int{enable(c.ID), enable(other.ID)}
		}, `[[200,200],[403,200]]`},
		"idempotent_delete": {elevensim.Faults{IdempotentDelete: true}, func(b *bench) any {
			c := b.create(plainKey)
			remove := func(id string) int { return b.do("DELETE", keysOfA+"/"+id, adminKey, "").status }
			return []int{remove(c.ID), remove(c.ID), remove("unknown")}
		}, `[[200,404,404],[200,200,404]]`},
		"unique_names": {elevensim.Faults{UniqueNames: true}, func(b *bench) any {
			create := func(name string) int {
				return b.do("POST", keysOfA, adminKey, `{"name":"`+name+`","permissions":"all"}`).status
			}
			return []int{create("n"), create("n"), create("m")}
		}, `[[200,200,200],[200,409,200]]`},
		"list_all_names": {elevensim.Faults{ListAllNames: true}, func(b *bench) any {
			b.create(plainKey)
			names, _ := first(b)["permissions"].([]any)
			return len(names)
		}, `[0,51]`},
		"list_any_address": {elevensim.Faults{ListAnyAddress: true}, func(b *bench) any {
			b.create(plainKey)
			return first(b)["allowed_ips"]
		}, `[null,["0.0.0.0/0","::/0"]]`},
		"list_plan_limit": {elevensim.Faults{ListPlanLimit: 5}, func(b *bench) any {
			b.create(plainKey)
			limits, _ := first(b)["platform_limits"].(map[string]any)
			return limits["concurrency"]
		}, `[null,{"limit":5}]`},
		"list_third_party": {elevensim.Faults{ListThirdParty: new(true)}, func(b *bench) any {
			b.create(plainKey)
			return first(b)["third_party_disable_allowed"]
		}, `[null,true]`},
		"concurrency_cap": {elevensim.Faults{ConcurrencyCap: 1}, func(b *bench) any {
			b.create(fullKey)
			k := b.State()[0].Keys[0]
			return []int64{*k.TTSConcurrency, *k.DubConcurrency, *k.MusicConcurrency}
		}, `[[1,2,0],[1,1,0]]`},
		"name_cut": {elevensim.Faults{NameCut: 3}, func(b *bench) any {
			b.create(`{"name":"æøåü","permissions":"all"}`)
			return first(b)["name"]
		}, `["æøåü","æøå"]`},
		"unenforced_ips": {elevensim.Faults{UnenforcedIPs: true}, func(b *bench) any {
			c := b.create(`{"name":"n","permissions":"all","allowed_ips":["192.0.2.1"]}`)
			return []any{b.status(c.Secret, "/v1/user"), first(b)["allowed_ips"]}
		}, `[[403,["192.0.2.1/32"]],[200,["192.0.2.1/32"]]]`},
		"allowed_ips not offered": {elevensim.Faults{NotOffered: []string{"allowed_ips"}}, func(b *bench) any {
			return []int{b.do("POST", keysOfA, adminKey, `{"name":"n","permissions":"all","allowed_ips":["192.0.2.1"]}`).status,
				b.do("POST", keysOfA, adminKey, plainKey).status}
		}, `[[200,200],[403,200]]`},
		"retry_after_in_words": {elevensim.Faults{RateLimit: elevensim.RateLimit{PerSecond: 0.001, Burst: 1, RetryAfter: true}, RetryAfterInWords: "soon"}, func(b *bench) any {
			b.status(adminKey, accounts)
			return b.do("GET", accounts, adminKey, "").header.Get("Retry-After")
		}, `["","soon"]`},
	} {
		t.Run(name, func(t *testing.T) {
			var got []any
			for _, f := range []elevensim.Faults{{}, tt.knob} {
				b := newUncheckedBench(t, options())
				b.set(f)
				got = append(got, tt.ask(b))
			}
			equalJSON(t, "without the knob, and with it", got, tt.want)
		})
	}
}

func TestTheCodeOfAKeyThatIsTooNew(t *testing.T) {
	b := newBench(t, options())
	b.set(elevensim.Faults{KeyDelay: elevensim.Duration(time.Hour), KeyDelayCode: "key_not_ready"})
	c := b.create(plainKey)
	equal(t, "at once", b.do("GET", "/v1/user", c.Secret, "").code(t), "key_not_ready")
	equal(t, "an unknown one", b.do("GET", "/v1/user", "sk_unknown", "").code(t), "invalid_api_key")
}

func TestIDLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{IDLag: elevensim.Duration(5 * time.Second)})
		c := b.create(plainKey)
		equal(t, "works at once", b.status(c.Secret, "/v1/user"), 200)
		equal(t, "listed at once", len(b.list()), 1)
		equal(t, "updated at once", b.do("PATCH", keysOfA+"/"+c.ID, adminKey, `{"is_enabled":false}`).code(t), "api_key_not_found")
		equal(t, "deleted at once", b.do("DELETE", keysOfA+"/"+c.ID, adminKey, "").status, 404)
		<-time.After(5 * time.Second)
		equal(t, "deleted later", b.do("DELETE", keysOfA+"/"+c.ID, adminKey, "").status, 200)
	})
}

// A listing shows what a key was, for so long after each change.
func TestChangeLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{ChangeLag: elevensim.Duration(5 * time.Second)})
		c := b.create(plainKey)
		equal(t, "listed at once", len(b.list()), 1)
		patch := func(body string) { b.do("PATCH", keysOfA+"/"+c.ID, adminKey, body) }
		shown := func() []any { return []any{b.list()[0]["name"], b.list()[0]["is_disabled"]} }
		patch(`{"name":"renamed"}`)
		equalJSON(t, "at once", shown(), `["n",false]`)
		<-time.After(3 * time.Second)
		patch(`{"is_enabled":false}`)
		equalJSON(t, "after three seconds", shown(), `["n",false]`)
		equal(t, "and dead at once", b.status(c.Secret, "/v1/user"), 401)
		<-time.After(2 * time.Second)
		equalJSON(t, "after five", shown(), `["renamed",false]`)
		<-time.After(3 * time.Second)
		equalJSON(t, "after eight", shown(), `["renamed",true]`)
	})
}

func TestKnobsOfAssumptionsAreChecked(t *testing.T) {
	s := elevensim.New(options())
	for _, f := range []elevensim.Faults{{Unguarded: []string{"fly"}}, {IDLag: -1}, {ChangeLag: -1}} {
		if err := s.SetFaults(f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
	set := elevensim.Faults{Codes: map[string]string{"a": "b"}, Unguarded: []string{"getUser"}}
	if err := s.SetFaults(set); err != nil {
		t.Fatal(err)
	}
	set.Codes["a"], set.Unguarded[0] = "c", "fly"
	if got := s.Faults(); got.Codes["a"] != "b" || !slices.Equal(got.Unguarded, []string{"getUser"}) {
		t.Errorf("a caller's change reached the server: %+v", got)
	}
}
