package daemon

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

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
	faults = append(faults, proxyFaults(lookuper)...)
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
		fault("REKEYD_WEB_CONFIG_FILE is %q, which cannot be used: %s; correct the file", env.WebConfigFile, webFault(err))
	}
	return faults
}

// yamlLine finds where a fault of YAML is.
var yamlLine = regexp.MustCompile(`\bline (\d+):`)

// webFault says what is wrong with a web config, without the words of the file where they could be anything: it may be the
// wrong file, or have a hash in the wrong place.
func webFault(err error) string {
	text := err.Error()
	if !strings.HasPrefix(text, "yaml: ") {
		return strings.Join(strings.Fields(text), " ")
	}
	var lines []string
	for _, found := range yamlLine.FindAllStringSubmatch(text, -1) {
		lines = append(lines, found[1])
	}
	const what = "it is not what docs/http.md describes"
	switch lines = slices.Compact(lines); {
	case len(lines) == 0:
		return what
	case len(lines) > 3:
		lines = append(lines[:3], "…")
	}
	return what + ", line " + strings.Join(lines, ", ")
}
