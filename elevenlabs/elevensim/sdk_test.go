package elevensim_test

import (
	"context"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/localtest"
)

// TestVendorSDK drives the simulator with the vendor's official SDK, through the contract's eyes: what the SDK sends
// and what it gets must both match openapi.yaml.
func TestVendorSDK(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	localtest.NPM(ctx, t, "sdktest")

	s := elevensim.New(options())
	origin, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(origin) },
		Transport: newContract(t, elevensim.Transport(s)),
	})
	defer server.Close()
	node := sdkCommand(ctx, "node", "--test", "sdk.test.js")
	node.Env = append(os.Environ(), "ELEVENSIM_URL="+server.URL, "ELEVENSIM_ADMIN_KEY="+adminKey, "ELEVENSIM_ACCOUNT=svcacc_a")
	if out, err := node.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkSDKRequests(t, s.History())
}

// checkSDKRequests holds the vendor's wire names, as they arrived, against what the simulator expects.
func checkSDKRequests(t *testing.T, history []elevensim.Request) {
	t.Helper()
	var operations []string
	for _, r := range history {
		operations = append(operations, r.Operation)
	}
	slices.Sort(operations)
	equalJSON(t, "operations that the SDK called", slices.Compact(operations), `["createAPIKey","createServiceAccount","deleteAPIKey",
		"disableOwnAPIKey","getUser","listAPIKeys","listModels","listServiceAccounts","updateAPIKey"]`)
	i := slices.IndexFunc(history, func(r elevensim.Request) bool { return r.Operation == "createAPIKey" })
	equalJSON(t, "the SDK's create", history[i].Body, `{"name":"every field","permissions":["user_read","models_read"],"character_limit":1000,
		"allowed_ips":["127.0.0.1","10.0.0.0/8"],"third_party_disable_allowed":true,
		"tts_concurrency_limit":1,"dubbing_concurrency_limit":2,"music_concurrency_limit":3}`)
}

func sdkCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = "sdktest"
	return c
}
