package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/sinks"
)

// Level is a finding's severity.
type Level string

// The levels of findings.
const (
	LevelOK      Level = "ok"
	LevelUnknown Level = "unknown" // not visible to the token
	LevelWarning Level = "warning"
	LevelError   Level = "error"
)

// Finding is one line of a doctor's report.
type Finding struct {
	Level   Level  `json:"level"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// Examine checks Vault, or the files in its place, and ElevenLabs. It changes nothing, except that it creates the file
// sink's folder.
func (d *Daemon) Examine(ctx context.Context) []Finding {
	x := &examination{d: d, policies: d.cfg.Policies.Policies}
	var stored bool
	if d.vault == nil {
		stored = x.note(x.check(ctx, x.everything()...), "files", "%s can be read and written", d.cfg.Env.FileDir)
	} else if stored = x.reachable(ctx); stored {
		x.mounts(ctx)
		x.paths(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(d.workspaces.current)) {
		x.workspace(ctx, name)
	}
	if stored {
		x.plans(ctx)
		x.probes(ctx)
	}
	for i := range x.findings {
		x.findings[i].Text = d.redactor.Cut(strings.Join(strings.Fields(x.findings[i].Text), " "))
	}
	return x.findings
}

// examination is a report in the making.
type examination struct {
	d        *Daemon
	policies []plan.Policy
	findings []Finding
}

func (x *examination) say(level Level, subject, format string, args ...any) {
	x.findings = append(x.findings, Finding{level, subject, fmt.Sprintf(format, args...)})
}

// note adds the error, or the text when there is none; it reports whether there is none.
func (x *examination) note(err error, subject, format string, args ...any) bool {
	if err != nil {
		x.say(LevelError, subject, "%s", err)
		return false
	}
	x.say(LevelOK, subject, format, args...)
	return true
}

func (x *examination) check(ctx context.Context, refs ...ledger.Ref) error {
	return x.d.rotator.CheckAccess(ctx, refs...)
}

func (x *examination) ledger() []ledger.Ref {
	folder := x.d.cfg.Env.Ledger()
	refs := []ledger.Ref{folder.Join("owner")}
	for _, p := range x.policies {
		refs = append(refs, folder.Join("policies").Join(p.Name))
		if p.Group != "" {
			refs = append(refs, folder.Join("groups").Join(p.Group))
		}
	}
	return refs
}

func (x *examination) everything() []ledger.Ref {
	refs := x.ledger()
	for _, p := range x.policies {
		refs = append(refs, p.Sink.Ref)
	}
	return refs
}

// reachable checks Vault itself and the token; without either, no further check is possible.
func (x *examination) reachable(ctx context.Context) bool {
	version, sealed, err := x.d.vault.Seal(ctx)
	switch {
	case err != nil:
		return x.note(err, "vault", "")
	case sealed:
		x.say(LevelError, "vault", "%s answers and is sealed; unseal it", x.d.cfg.Env.VaultAddr)
		return false
	}
	x.say(LevelOK, "vault", "%s answers and is unsealed (Vault %s)", x.d.cfg.Env.VaultAddr, version)
	switch node, err := x.d.vault.Node(ctx); {
	case err != nil:
		x.say(LevelUnknown, "standbys", "whether they answer reads could not be asked: %s", err)
	case node.Reads && node.Indexed:
		x.say(LevelOK, "standbys", "they answer reads, which may lag; what rests on a read asks for the index of the write before it")
	case node.Reads:
		x.say(LevelWarning, "standbys", "they answer reads, which may lag, and return no index to ask for; to be sure, each record is written once more, as it is, before its old key is disabled; point VAULT_ADDR at the active node, or set disable_standby_reads there")
	}
	expiry, renewable, err := x.d.vault.LookUp(ctx)
	ends := fmt.Sprintf("it ends %s, in %s", expiry.UTC().Format(time.RFC3339), web.Span(time.Until(expiry)))
	switch {
	case err != nil:
		return x.note(err, "token", "")
	case x.d.cfg.Env.VaultAuth == "approle" && !x.d.cfg.Env.VaultSecretID.IsSet():
		x.say(LevelWarning, "token", "valid, but its wrapped secret id is used up by this check; give the daemon a new one, and commands an unwrapped one in REKEYD_VAULT_SECRET_ID")
	case expiry.IsZero():
		x.say(LevelOK, "token", "valid, and never ends")
	case renewable:
		x.say(LevelOK, "token", "valid; %s, and is renewed by the daemon", ends)
	default:
		x.say(LevelWarning, "token", "valid, but %s, and cannot be renewed; give a periodic token", ends)
	}
	return true
}

// mounts checks that each mount can be used, and how long it keeps versions.
func (x *examination) mounts(ctx context.Context) {
	names := map[string]bool{}
	for _, ref := range x.everything() {
		names[ref.Mount] = true
	}
	for _, mount := range slices.Sorted(maps.Keys(names)) {
		subject := "mount " + mount
		if !x.note(x.d.vault.CheckMount(ctx, mount), subject, "a KV engine of version 2") {
			continue
		}
		r, seen, err := x.d.vault.MountRetention(ctx, mount)
		switch {
		case err != nil:
			x.say(LevelError, subject, "%s", err)
		case !seen:
			x.say(LevelUnknown, subject, "how long it keeps versions could not be seen: the token may not read %s/config", mount)
		default:
			x.retention(subject, r)
		}
	}
}

// leastVersions are the current one, the one to roll back to, and one for other writers.
const leastVersions = 3

func (x *examination) retention(subject string, r sinks.Retention) {
	if r.DeleteAfter > 0 {
		x.say(LevelWarning, subject, "delete_version_after is %s: Vault deletes secrets and ledger after that; set it to 0s", r.DeleteAfter)
	}
	if r.MaxVersions > 0 && r.MaxVersions < leastVersions {
		x.say(LevelWarning, subject, "max_versions is %d: with so few, rekeyd rollback may find no version to go back to; set it to %d or more, or to 0", r.MaxVersions, leastVersions)
	}
}

// paths checks what the token may do in the ledger and in each sink.
func (x *examination) paths(ctx context.Context) {
	_ = x.check(ctx, x.everything()...) // one call for all; the calls below reuse its result
	ledger := x.d.cfg.Env.Ledger()
	err := x.check(ctx, x.ledger()...)
	if err == nil {
		_, err = x.d.rotator.EntryNames(ctx)
	}
	x.note(err, "ledger "+ledger.String(), "the token may create, read, update and list")
	unseen := 0
	for _, p := range x.policies {
		subject := "sink " + p.Sink.String()
		x.note(x.check(ctx, p.Sink.Ref), subject, "the token may create, read and update (policy %s)", p.Name)
		r, seen, err := x.d.vault.Retention(ctx, p.Sink.Ref)
		if err != nil || !seen {
			unseen++
			continue
		}
		x.retention(subject, r)
	}
	if unseen > 0 {
		x.say(LevelUnknown, "sinks", "how long single records keep versions could not be seen for %d of %d: the token may not read their metadata", unseen, len(x.policies))
	}
}

// workspace checks that ElevenLabs accepts the admin key, and that the accounts exist.
func (x *examination) workspace(ctx context.Context, name string) {
	ws := x.d.workspaces.current[name]
	subject := "workspace " + name
	accounts, err := ws.client.ServiceAccounts(ctx)
	if err != nil {
		x.say(LevelError, subject, "%s", &ledger.Error{Op: ws.base, Reason: rotator.FailureOf(err), Err: err})
		return
	}
	x.say(LevelOK, subject, "%s answers, the admin key is accepted and may list service accounts; there are %d", ws.base, len(accounts))
	wanted := map[string][]string{}
	for _, p := range x.policies {
		if p.Workspace == name {
			wanted[p.ServiceAccount] = append(wanted[p.ServiceAccount], p.Name)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		x.account(subject, accounts, id, wanted[id])
	}
}

func (x *examination) account(subject string, accounts []elevenlabs.ServiceAccount, id string, policies []string) {
	var candidates []string
	for _, a := range accounts {
		if a.ID == id {
			x.say(LevelOK, "account "+id, "exists (%s); keys: %d", a.Name, len(a.Keys))
			return
		}
		candidates = append(candidates, a.ID+" ("+a.Name+")")
	}
	slices.Sort(candidates)
	x.say(LevelError, "account "+id, "%s has no such service account, named by %s; it has: %s", subject, strings.Join(policies, ", "), cmp.Or(strings.Join(candidates, ", "), "none"))
}

// plans says of each policy what stands in its way as it is now, and whether ElevenLabs may disable its current key. What cannot be
// read, and an account that does not exist, is reported elsewhere.
func (x *examination) plans(ctx context.Context) {
	snapshot, err := x.d.rotator.Survey(ctx)
	if err != nil {
		return
	}
	for _, p := range web.ViewOf(snapshot).Policies {
		subject := "policy " + p.Name
		if p.State == plan.StateError && p.Reason != string(plan.FaultUnknownAccount) {
			x.say(LevelError, subject, "%s", p.Message)
		}
		if p.State == plan.StateOK && p.Reason == string(ledger.TriggerKeyMissing) {
			x.say(LevelWarning, subject, "key_missing: ElevenLabs does not list key %s; if the next listing lacks it too, and its secret is refused, the daemon replaces it", p.Key.ID)
		}
		if text := p.Unguarded(); text != "" {
			x.say(LevelWarning, subject, "%s; a leak of it goes unnoticed", text)
		}
	}
}

// probes asks for the paths that each policy probes, with the secret in its record.
func (x *examination) probes(ctx context.Context) {
	for _, p := range x.policies {
		answers, err := x.d.rotator.ProbeCurrent(ctx, p)
		subject := "policy " + p.Name
		if err != nil {
			x.say(LevelError, subject, "its probes could not be tried: %s", err)
			continue
		}
		for _, a := range answers {
			if a.Status/100 == 2 {
				x.say(LevelOK, subject, "probe %s answers %d with the current key", a.Path, a.Status)
				continue
			}
			x.say(LevelError, subject, "probe %s answers %s with the current key, so a rotation would fail; correct the path, or share what it names with service account %s", a.Path, status(a.Status), p.ServiceAccount)
		}
	}
}

func status(code int) string {
	if code == 0 {
		return "nothing"
	}
	return fmt.Sprint(code)
}
