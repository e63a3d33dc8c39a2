package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/web"
)

// Settings is the whole configuration, without faults.
type Settings struct {
	Env      config.Env
	Policies *config.Config
	Lookuper envconfig.Lookuper // finds the variables that the policy file's workspaces name, at each reload
	// Unwrapped is called once a wrapped secret id was unwrapped, which is then of no use to any other process; may be nil.
	Unwrapped func()
}

// Load reads environment and policies. The error is a [config.Faults] with everything that is wrong with either.
func Load(lookuper envconfig.Lookuper) (Settings, error) {
	var faults config.Faults
	env, err := config.LoadEnv(lookuper)
	faults = append(faults, faultsOf(err)...)
	if err := web.CheckConfig(env.WebConfigFile); err != nil {
		faults = append(faults, config.Fault{Text: fmt.Sprintf("REKEYD_WEB_CONFIG_FILE is %q, which cannot be used: %s; correct the file", env.WebConfigFile, err)})
	}
	faults = append(faults, proxyFaults(lookuper)...)
	s := Settings{Env: env, Lookuper: lookuper}
	if (env.PolicyFile == "") != (env.Policies == "") { // else LoadEnv reported it
		s.Policies, err = config.LoadPolicies(context.Background(), env.Source(), env, lookuper)
		faults = append(faults, faultsOf(err)...)
	}
	if len(faults) > 0 {
		return Settings{}, faults
	}
	return s, nil
}

func faultsOf(err error) config.Faults {
	var faults config.Faults
	if err != nil && !errors.As(err, &faults) {
		return config.Faults{{Text: err.Error()}}
	}
	return faults
}
