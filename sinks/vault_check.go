package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Check implements ledger.Store. It makes no call for cached facts.
func (v *Vault) Check(ctx context.Context, refs ...ledger.Ref) error {
	const op = "checking what the token may do"
	var ask []ledger.Ref
	for _, ref := range refs {
		if err := validRef(op, ref); err != nil {
			return err
		}
		if !remembered(v, &v.able, ref) && !slices.Contains(ask, ref) {
			ask = append(ask, ref)
		}
	}
	if err := v.token.ended(op); err != nil || len(ask) == 0 {
		return err
	}
	also, err := v.checkCapabilities(ctx, op, ask)
	if err != nil {
		return err
	}
	for _, ref := range ask {
		if err := v.checkMount(ctx, op, ref.Mount); err != nil {
			return err
		}
	}
	remember(v, &v.able, ask...)
	remember(v, &v.able, slices.DeleteFunc(also, func(ref ledger.Ref) bool { return !remembered(v, &v.mounts, ref.Mount) })...)
	return nil
}

// foreseen is how many documents are asked about together.
const foreseen = 128

// Expect implements ledger.Foresight.
func (v *Vault) Expect(refs iter.Seq[ledger.Ref]) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next, v.turn = refs, 0
}

// ahead returns the next documents that will have to be asked about. It goes on where the last call stopped: what was refused is not
// asked about again before all others.
func (v *Vault) ahead(asked []ledger.Ref) []ledger.Ref {
	v.mu.Lock()
	next, from := v.next, v.turn
	v.mu.Unlock()
	if next == nil {
		return nil
	}
	var refs []ledger.Ref
	at, end := 0, true
	for ref := range next { // it takes locks of its own
		if at++; at <= from {
			continue
		}
		if len(refs)+len(asked) >= foreseen {
			end = false
			break
		}
		if !remembered(v, &v.able, ref) && !slices.Contains(asked, ref) && validRef("", ref) == nil {
			refs = append(refs, ref)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.turn = at - 1; end {
		v.turn = 0
	}
	return refs
}

// checkCapabilities asks for all documents in one call, and for those that are expected next, of which it returns the ones that
// may be written. A KV write is an update if the document has metadata, otherwise a create, so both are needed.
func (v *Vault) checkCapabilities(ctx context.Context, op string, refs []ledger.Ref) (also []ledger.Ref, err error) {
	also = v.ahead(refs)
	paths := make([]string, 0, len(refs)+len(also))
	for _, ref := range slices.Concat(refs, also) {
		paths = append(paths, dataPath(ref))
	}
	granted, a := v.capabilities(ctx, paths)
	if granted == nil {
		if a.fault == nil && a.status == http.StatusForbidden {
			return nil, v.refused(op, a, "update on sys/capabilities-self")
		}
		return nil, v.failure(ctx, op, a, false)
	}
	missing := func(path string) []string { return without(granted[path], "create", "read", "update") }
	var lacking []string
	for _, path := range paths[:len(refs)] {
		if missing := missing(path); len(missing) > 0 {
			lacking = append(lacking, strings.Join(missing, ", ")+" on "+path)
		}
	}
	if len(lacking) > 0 {
		v.forget()
		return nil, lacks(op, errors.New("the token's policies are not enough"), lacking)
	}
	return slices.DeleteFunc(also, func(ref ledger.Ref) bool { return len(missing(dataPath(ref))) > 0 }), nil
}

// capabilities returns the token's capabilities on each path, or nil and the answer that shows why they are unknown.
func (v *Vault) capabilities(ctx context.Context, paths []string) (map[string][]string, answer) {
	body, _ := json.Marshal(map[string][]string{"paths": paths}) // strings can be encoded
	a := v.put(ctx, opCheck, "sys/capabilities-self", body)
	var granted map[string][]string
	if !a.ok() || decode(a.data, &granted) != nil {
		return nil, a
	}
	return granted, a
}

func without(granted []string, needed ...string) []string {
	if slices.Contains(granted, "root") {
		return nil
	}
	return slices.DeleteFunc(needed, func(c string) bool { return slices.Contains(granted, c) })
}

const maxNamed = 5 // paths named in one error

func lacks(op string, err error, lacking []string) error {
	if more := len(lacking) - maxNamed; more > 0 {
		lacking = append(lacking[:maxNamed:maxNamed], fmt.Sprintf("the same for %d more", more))
	}
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkDenied, Err: err, Advice: "grant " + strings.Join(lacking, "; ")}
}

// denied is the error of a 403. It asks Vault which capability is missing; a token that may not ask is either invalid or
// lacks rekeyd's policy.
func (v *Vault) denied(ctx context.Context, op string, a answer, path string, needed ...string) error {
	v.forget()
	if a.says("invalid token") {
		return v.refused(op, a, "")
	}
	granted, why := v.capabilities(ctx, []string{path})
	if granted == nil && why.fault == nil && why.status == http.StatusForbidden {
		return v.refused(op, why, "update on sys/capabilities-self")
	}
	if missing := without(granted[path], needed...); granted != nil && len(missing) > 0 {
		return lacks(op, v.message(a), []string{strings.Join(missing, ", ") + " on " + path})
	}
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkDenied, Err: v.message(a),
		Advice: "check whether the token is bound to other addresses or another namespace, or a policy limits parameters on " + path}
}

// refused is the error of a token that Vault rejects, or that lacks a capability which every call needs: it affects every
// document.
func (v *Vault) refused(op string, a answer, needed string) error {
	advice := "give a token that is neither expired nor revoked and has deploy/vault/policy.hcl"
	if needed != "" && !a.says("invalid token") {
		advice = "grant " + needed + ", as deploy/vault/policy.hcl does"
	}
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkDenied, Outage: true, Err: v.message(a), Advice: advice}
}

// checkMount checks that a mount is a KV engine of version 2.
func (v *Vault) checkMount(ctx context.Context, op, mount string) error {
	if remembered(v, &v.mounts, mount) {
		return nil
	}
	a := v.get(ctx, opCheck, "sys/internal/ui/mounts/"+mount, nil)
	// Vault does not reveal whether a mount exists to a token without any capability below it.
	if a.fault == nil && (a.status == http.StatusNotFound || a.status == http.StatusForbidden && a.says("preflight")) {
		return noMount(op, mount, fmt.Errorf("there is no mount %s that this token may use", mount),
			"enable a KV version 2 engine there or correct the mount")
	}
	if a.fault == nil && a.status == http.StatusForbidden {
		return v.denied(ctx, op, a, "sys/internal/ui/mounts/"+mount, "read")
	}
	if err := v.judgeMount(ctx, op, mount, a); err != nil {
		return err
	}
	remember(v, &v.mounts, mount)
	return nil
}

func (v *Vault) judgeMount(ctx context.Context, op, mount string, a answer) error {
	var m struct {
		Path    string            `json:"path"`
		Type    string            `json:"type"`
		Options map[string]string `json:"options"`
	}
	switch err := decode(a.data, &m); {
	case err != nil || !a.ok():
		return v.failure(ctx, op, a, false)
	case m.Path != mount+"/":
		return noMount(op, mount, fmt.Errorf("there is no mount %s, but %s", mount, m.Path),
			"name the mount as Vault does, and move the rest into the path")
	case m.Type == "kv" && m.Options["version"] == "2":
		return nil
	case m.Type == "kv" || m.Type == "generic":
		return &ledger.Error{Op: op, Reason: ledger.FailureSinkNotKV2,
			Err:    fmt.Errorf("mount %s is a KV engine of version 1, which has neither check-and-set nor versions", mount),
			Advice: "use a mount of version 2, or upgrade it with: vault kv enable-versioning " + mount}
	default:
		return &ledger.Error{Op: op, Reason: ledger.FailureSinkNotKV2, Err: fmt.Errorf("mount %s is of type %q, not kv", mount, m.Type)}
	}
}

func noMount(op, mount string, err error, advice string) error {
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkNoMount, Err: err, Advice: advice + " (" + mount + ")"}
}
