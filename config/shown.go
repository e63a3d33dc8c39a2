package config

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// Shown returns the part of environ ("NAME=value") that concerns rekeyd, sorted and fit to be shown to others. Only a
// variable of rekeyd that is neither secret nor sensitive has its value.
func Shown(environ []string) []string {
	plain := map[string]bool{}
	for _, v := range variables() {
		for _, name := range v.names() {
			plain[name] = !v.sensitive && (!v.secret() || name != v.name)
			if rest, ok := strings.CutPrefix(name, "VAULT_"); ok {
				plain["BAO_"+rest] = plain[name]
			}
		}
	}
	var lines []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		switch ours, _, _ := strings.Cut(name, "_"); {
		case plain[name]:
			lines = append(lines, entry)
		case slices.Contains([]string{"REKEYD", "ELEVENLABS", "VAULT", "BAO"}, ours) || strings.HasSuffix(strings.ToUpper(name), "_PROXY"):
			lines = append(lines, name+" (set; its value is left out)")
		}
	}
	slices.Sort(lines)
	return lines
}

// Secrets returns the secrets that the environment names, without those that cannot be read.
func (e Env) Secrets(ctx context.Context) []secret.Secret {
	sources := []SecretSource{SecretFile(e.VaultTokenFile), SecretFile(e.VaultJWTFile)}
	for _, field := range reflect.ValueOf(e).Fields() {
		if source, ok := field.Interface().(SecretSource); ok {
			sources = append(sources, source)
		}
	}
	var secrets []secret.Secret
	for _, source := range sources {
		if s, err := source.Get(ctx); err == nil {
			secrets = append(secrets, s)
		}
	}
	return secrets
}
