package config

import (
	"slices"
	"testing"

	"github.com/sethvargo/go-envconfig"
)

// TestWhatIsShownOfTheEnvironment: values only of variables that cannot hold a secret.
func TestWhatIsShownOfTheEnvironment(t *testing.T) {
	t.Parallel()
	got := Shown([]string{
		"REKEYD_SINK=vault", "REKEYD_CLAIM_TTL=2m", "BAO_CACERT=ca.pem", "VAULT_TOKEN_FILE=/run/token", "REKEYD_WEB_CONFIG_FILE=web.yml",
		"VAULT_TOKEN=one", "BAO_TOKEN=two", "REKEYD_ADMIN_TOKEN=three", "ELEVENLABS_OTHER_KEY=four", "REKEYD_EVENTS_URL=five", "REKEYD_POLICIES=six",
		"REKEYD_ADMIN_TOKN=seven", "https_proxy=eight", "HTTP_PROXY=nine", "AWS_SECRET_ACCESS_KEY=ten", "PATH=/bin",
	})
	const left = " (set; its value is left out)"
	want := []string{
		"BAO_CACERT=ca.pem", "BAO_TOKEN" + left, "ELEVENLABS_OTHER_KEY" + left, "HTTP_PROXY" + left, "REKEYD_ADMIN_TOKEN" + left,
		"REKEYD_ADMIN_TOKN" + left, "REKEYD_CLAIM_TTL=2m", "REKEYD_EVENTS_URL" + left, "REKEYD_POLICIES" + left, "REKEYD_SINK=vault",
		"REKEYD_WEB_CONFIG_FILE=web.yml", "VAULT_TOKEN" + left, "VAULT_TOKEN_FILE=/run/token", "https_proxy" + left,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestEverySecretIsKnown: each variable that holds a secret.
func TestEverySecretIsKnown(t *testing.T) {
	t.Parallel()
	given, want := map[string]string{}, map[string]bool{}
	for _, v := range variables() {
		if v.secret() {
			given[v.name] = "secret-of-" + v.name
			want[given[v.name]] = true
		}
	}
	env, _ := LoadEnv(envconfig.MapLookuper(given)) // faults, since they do not go together
	for _, s := range env.Secrets(t.Context()) {
		delete(want, s.Reveal())
	}
	if len(want) > 0 || len(given) < 5 {
		t.Errorf("of %d these are missing: %v", len(given), want)
	}
}
