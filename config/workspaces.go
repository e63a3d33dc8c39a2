package config

import (
	"context"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Workspace is one ElevenLabs workspace and the source of its admin key.
type Workspace struct {
	Name    string
	BaseURL string
	APIKey  KeySource
}

// KeySource is the place of an admin key: a field in Vault, or Secret.
type KeySource struct {
	Secret SecretSource
	Vault  *ledger.Sink // nil: in Secret
}

const vendorURL = "https://api.elevenlabs.io"

// workspaces checks the workspaces; if the file has none, the environment describes one named default.
func (l *loader) workspaces(ctx context.Context, given []workspace, mentioned bool) {
	if !mentioned {
		l.workspaceLines["default"] = 0
		l.config.Workspaces = []Workspace{{"default", l.env.BaseURL, KeySource{Secret: l.env.APIKey}}}
		if l.lookup != nil && !l.env.APIKey.IsSet() {
			l.faults = append(l.faults, Fault{File: l.file, Text: "the file has no workspaces, and ELEVENLABS_API_KEY is not set; set it or ELEVENLABS_API_KEY_FILE, or add workspaces"})
		}
		return
	}
	l.workspacesUnsure = len(given) == 0
	for i := range given {
		l.workspace(ctx, &given[i])
	}
}

func (l *loader) workspace(ctx context.Context, w *workspace) {
	if !w.Name.given() { // reported by the first pass
		l.workspacesUnsure = true
		return
	}
	prefix := w.Who + ": "
	if line, twice := l.workspaceLines[w.Name.Value]; twice {
		l.fault(w.Name.node, "%sname is that of the workspace on line %d too; give each its own", prefix, line)
	}
	l.workspaceLines[w.Name.Value] = w.Node.Line
	base := w.BaseURL.or(vendorURL)
	if u, flaw := parseBase(base); flaw != "" {
		l.fault(w.BaseURL.where(w.Node), "%sbase_url %s", prefix, flaw)
	} else if !loopback(u) && !l.allowed[origin(u)] {
		l.fault(w.BaseURL.where(w.Node), "%sbase_url is %s, which is neither the vendor's nor loopback; write https://api.elevenlabs.io or a regional host, or add its origin to REKEYD_ALLOWED_API_ORIGINS", prefix, quote(base))
	}
	l.config.Workspaces = append(l.config.Workspaces, Workspace{w.Name.Value, base, l.key(ctx, w, prefix)})
}

// allowedOrigins are the origins that a base_url may have; the vendor's hosts only with https.
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

// key resolves an api_key. Its messages do not quote the value, which may be the key itself in the wrong place.
func (l *loader) key(ctx context.Context, w *workspace, prefix string) KeySource {
	k := w.APIKey
	switch {
	case l.lookup == nil && !k.Vault.Path.given(): // the key is where rekeyd runs
		return KeySource{}
	case k.Env.given():
		return KeySource{Secret: l.keyFromEnv(ctx, k.Env, prefix)}
	case k.File.given():
		source := SecretFile(k.File.Value)
		if flaw := source.flaw(ctx, 1); flaw != "" {
			l.fault(k.File.node, "%sapi_key.file %s", prefix, flaw)
		}
		return KeySource{Secret: source}
	case k.Vault.Path.given():
		ref := sink(k.Vault).resolve()
		l.adminKeys[ref.String()] = append(l.adminKeys[ref.String()], adminPlace{w, ref.Field}) // for adminKey
		return KeySource{Vault: &ref}
	}
	return KeySource{}
}

func (l *loader) keyFromEnv(ctx context.Context, name at[string], prefix string) SecretSource {
	value, given := l.lookup.Lookup(name.Value)
	path, fromFile := l.lookup.Lookup(name.Value + "_FILE")
	source := SecretValue(value)
	if fromFile {
		source = SecretFile(path)
	}
	switch {
	case given && fromFile:
		l.fault(name.node, "%sapi_key.env names %s, and that and %s_FILE are both set; unset one of them", prefix, name.Value, name.Value)
	case !given && !fromFile:
		l.fault(name.node, "%sapi_key.env names %s, which is not set; set it or %s_FILE", prefix, name.Value, name.Value)
	default:
		if flaw := source.flaw(ctx, 1); flaw != "" {
			l.fault(name.node, "%sapi_key.env names %s, which %s", prefix, name.Value, flaw)
		}
	}
	return source
}

// workspaceOf refuses an undefined workspace.
func (l *loader) workspaceOf(p *policy) {
	name := p.Workspace.or("default")
	if _, ok := l.workspaceLines[name]; ok || l.workspacesUnsure || l.full() {
		return
	}
	advice := "define it under workspaces"
	if known := l.config.WorkspaceNames(); len(known) > 0 {
		advice += "; " + Suggestion(name, known)
	}
	l.fault(p.Workspace.where(p.Node), "%sworkspace is %s, which is not defined; %s", p.prefix(), quote(name), advice)
}
