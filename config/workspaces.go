package config

import (
	"context"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Workspace is one ElevenLabs workspace and where its admin key is.
type Workspace struct {
	Name    string
	BaseURL string
	APIKey  KeySource
}

// KeySource is where an admin key is: in Vault, or else in Secret.
type KeySource struct {
	Secret SecretSource
	Vault  *ledger.Sink // nil: in Secret
}

const vendorURL = "https://api.elevenlabs.io"

// workspaces checks the workspaces; where the file has none, the environment describes the one named default.
func (l *loader) workspaces(ctx context.Context, given []workspace, mentioned bool) {
	if !mentioned {
		l.spaces["default"] = 0
		l.config.Workspaces = []Workspace{{"default", l.env.BaseURL, KeySource{Secret: l.env.APIKey}}}
		if !l.env.APIKey.IsSet() {
			l.faults = append(l.faults, Fault{File: l.file, Text: "the file has no workspaces, and ELEVENLABS_API_KEY is not set; set it or ELEVENLABS_API_KEY_FILE, or add workspaces"})
		}
		return
	}
	l.spacesUnsure = len(given) == 0
	for i := range given {
		l.workspace(ctx, &given[i])
	}
}

func (l *loader) workspace(ctx context.Context, w *workspace) {
	if !w.Name.given() { // reported by the first pass
		l.spacesUnsure = true
		return
	}
	says := w.Who + ": "
	if line, twice := l.spaces[w.Name.Value]; twice {
		l.fault(w.Name.node, "%sname is that of the workspace in line %d too; give each its own", says, line)
	}
	l.spaces[w.Name.Value] = w.Node.Line
	base := w.BaseURL.or(vendorURL)
	if u, flaw := parseBase(base); flaw != "" {
		l.fault(w.BaseURL.where(w.Node), "%sbase_url %s", says, flaw)
	} else if !loopback(u) && !l.allowed[origin(u)] {
		l.fault(w.BaseURL.where(w.Node), "%sbase_url is %s, which is neither the vendor's nor loopback; write https://api.elevenlabs.io or a regional host, or add its origin to REKEYD_ALLOWED_API_ORIGINS", says, quote(base))
	}
	l.config.Workspaces = append(l.config.Workspaces, Workspace{w.Name.Value, base, l.key(ctx, w, says)})
}

// allowedOrigins are those that a base_url may have. Of the vendor's hosts only https is among them.
func allowedOrigins(env Env) map[string]bool {
	allowed := map[string]bool{}
	for _, o := range vendorOrigins() {
		allowed[o] = true
	}
	for _, text := range append(slices.Clone(env.AllowedAPIOrigins), env.BaseURL) {
		if u, flaw := parseBase(text); flaw == "" {
			allowed[origin(u)] = true
		}
	}
	return allowed
}

// key resolves an api_key. No sentence repeats what was written: it may be the key itself, in the wrong place.
func (l *loader) key(ctx context.Context, w *workspace, says string) KeySource {
	k := w.APIKey
	switch {
	case k.Env.given():
		return KeySource{Secret: l.keyFromEnv(ctx, k.Env, says)}
	case k.File.given():
		source := SecretFile(k.File.Value)
		if flaw := source.flaw(ctx, 1); flaw != "" {
			l.fault(k.File.node, "%sapi_key.file %s", says, flaw)
		}
		return KeySource{Secret: source}
	case k.Vault.Path.given():
		return KeySource{Vault: l.keyFromVault(k.Vault, w)}
	}
	return KeySource{}
}

func (l *loader) keyFromEnv(ctx context.Context, name at[string], says string) SecretSource {
	value, given := l.lookup.Lookup(name.Value)
	path, fromFile := l.lookup.Lookup(name.Value + "_FILE")
	source := SecretValue(value)
	if fromFile {
		source = SecretFile(path)
	}
	switch {
	case given && fromFile:
		l.fault(name.node, "%sapi_key.env names %s, and that and %s_FILE are both set; unset one of them", says, name.Value, name.Value)
	case !given && !fromFile:
		l.fault(name.node, "%sapi_key.env names %s, which is not set; set it or %s_FILE", says, name.Value, name.Value)
	default:
		if flaw := source.flaw(ctx, 1); flaw != "" {
			l.fault(name.node, "%sapi_key.env names %s, which %s", says, name.Value, flaw)
		}
	}
	return source
}

// keyFromVault also notes the place, for the policy that may publish there, and against others.
func (l *loader) keyFromVault(v vaultField, w *workspace) *ledger.Sink {
	ref := sink(v).meant()
	l.adminKeys[ref.String()] = append(l.adminKeys[ref.String()], adminPlace{w, ref.Field})
	return &ref
}

// workspaceOf refuses a workspace that nobody defined.
func (l *loader) workspaceOf(p *policy) {
	name := p.Workspace.or("default")
	if _, ok := l.spaces[name]; ok || l.spacesUnsure || l.full() {
		return
	}
	known := make([]string, 0, len(l.config.Workspaces))
	for _, w := range l.config.Workspaces {
		known = append(known, w.Name)
	}
	advice := "define it under workspaces"
	if len(known) > 0 {
		advice += "; " + Meant(name, known)
	}
	l.fault(p.Workspace.where(p.Node), "%sworkspace is %s, which is not defined; %s", p.says(), quote(name), advice)
}
