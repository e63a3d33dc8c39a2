package daemon

import (
	"cmp"
	"context"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// API is what it takes to call one workspace beside its client.
type API struct {
	Env       config.Env
	Workspace string
	BaseURL   string
	AdminKey  func(context.Context) (secret.Secret, error)
	Redactor  *secret.Redactor
	store     ledger.Store // as far as it is open: it may have used up a wrapped secret id
}

// OpenAPI returns the API of a workspace; "" is the one named default, or the only one. Without a policy file it is the one that
// the environment describes, and nothing of Vault is needed. What is wrong with the configuration is a [config.Faults]. unwrapped is that of
// [Settings].
func OpenAPI(lookuper envconfig.Lookuper, workspace, version string, unwrapped func()) (API, error) {
	if config.HasPolicies(lookuper) {
		return openConfigured(lookuper, workspace, version, unwrapped)
	}
	env, w, err := config.LoadAPI(lookuper)
	if faults := append(faultsOf(err), proxyFaults(lookuper)...); len(faults) > 0 {
		return API{}, faults
	}
	if cmp.Or(workspace, w.Name) != w.Name {
		return API{}, (&config.Config{Workspaces: []config.Workspace{w}}).NoWorkspace(workspace)
	}
	redactor := new(secret.Redactor)
	holdProxyCredentials(lookuper, redactor)
	return API{env, w.Name, w.BaseURL, w.APIKey.Secret.Get, redactor, nil}, nil
}

func openConfigured(lookuper envconfig.Lookuper, workspace, version string, unwrapped func()) (API, error) {
	s, err := Load(lookuper)
	if err != nil {
		return API{}, err
	}
	s.Unwrapped = unwrapped
	if all := s.Policies.Workspaces; workspace == "" && len(all) == 1 {
		workspace = all[0].Name
	}
	workspace = cmp.Or(workspace, "default")
	d, err := New(Config{Settings: s, Version: version})
	if err != nil {
		return API{}, err
	}
	w := d.workspaces.current[workspace]
	if w == nil {
		return API{}, s.Policies.NoWorkspace(workspace)
	}
	return API{s.Env, workspace, w.base, w.credential.Get, d.redactor, d.workspaces.store}, nil
}
