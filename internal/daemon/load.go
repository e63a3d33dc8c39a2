package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/exporter-toolkit/web"
	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
)

// Settings is everything that a person said, without faults.
type Settings struct {
	Env      config.Env
	Policies *config.Config
	Lookuper envconfig.Lookuper // finds the variables that the policy file's workspaces name, at each reload
}

// Load reads environment and policies. The error is a [config.Faults] with everything that is wrong with either,
// and with what this version cannot do.
func Load(lookuper envconfig.Lookuper) (Settings, error) {
	var faults config.Faults
	env, err := config.LoadEnv(lookuper)
	faults = append(faults, faultsOf(err)...)
	faults = append(faults, unsupported(env)...)
	s := Settings{Env: env, Lookuper: lookuper}
	if (env.PolicyFile == "") != (env.Policies == "") { // else it was reported above
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
	switch {
	case err == nil:
		return nil
	case errors.As(err, &faults):
		return faults
	}
	return config.Faults{{Text: err.Error()}}
}

// unsupported refuses what is valid and not possible, so that it is not silently left out.
func unsupported(env config.Env) config.Faults {
	var faults config.Faults
	fault := func(format string, args ...any) {
		faults = append(faults, config.Fault{Text: fmt.Sprintf(format, args...)})
	}
	if err := web.Validate(env.WebConfigFile); err != nil {
		fault("REKEYD_WEB_CONFIG_FILE is %q, which cannot be used: %v; correct the file", env.WebConfigFile, err)
	}
	return faults
}
