package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// maxRecords bounds the records that Discover reads.
const maxRecords = 20_000

// Discovery is what a workspace has, and which records hold its keys.
type Discovery struct {
	Workspace string
	BaseURL   string
	Accounts  []elevenlabs.ServiceAccount
	Keys      map[string]*DiscoveredKey // by id
	Records   map[ledger.Ref]bool       // that exist
	Policies  []string                  // in the ledger
	Lacks     []string                  // why something is not known, as sentences
}

// DiscoveredKey is what ledger and records say of one key.
type DiscoveredKey struct {
	Policy string   // of this installation, which has the key already
	Others string   // id of another installation that made it
	Held   []Holder // records that hold its secret
	Maybe  []Holder // records that hold its secret or that of another key with the same hint
}

// Holder is a record that holds a key.
type Holder struct {
	ledger.Sink
	ByHint bool // the secret's end says so, and no key_id
}

// Discover looks at a workspace, the ledger, and the records below a path, and changes nothing. It needs neither policies nor
// Vault: what it cannot ask is among what is lacking. Without policies, the workspace is that of the environment, under any name. unwrapped is that of
// [Settings].
func Discover(ctx context.Context, lookuper envconfig.Lookuper, workspace, version string, under ledger.Ref, unwrapped func()) (*Discovery, error) {
	known := workspace
	if !config.HasPolicies(lookuper) {
		known = ""
	}
	api, err := OpenAPI(lookuper, known, version, unwrapped)
	if err != nil {
		return nil, err
	}
	client, err := elevenlabs.New(elevenlabs.Options{BaseURL: api.BaseURL, Credential: api.AdminKey, Timeout: api.Env.APITimeout, Rate: api.Env.APIRate,
		UserAgent: "rekeyd/" + version, Redactor: api.Redactor})
	if err != nil {
		return nil, err
	}
	d := &Discovery{Workspace: cmp.Or(workspace, api.Workspace), BaseURL: api.BaseURL, Keys: map[string]*DiscoveredKey{}, Records: map[ledger.Ref]bool{}}
	if d.Accounts, err = client.ServiceAccounts(ctx); err != nil {
		return nil, &ledger.Error{Op: "listing workspace " + api.Workspace, Reason: rotator.FailureOf(err), Err: err}
	}
	for _, a := range d.Accounts {
		for _, k := range a.Keys {
			d.Keys[k.ID] = &DiscoveredKey{}
		}
	}
	if api.Env.Sink == "vault" && api.Env.VaultAddr == "" {
		d.Lacks = append(d.Lacks, "VAULT_ADDR is not set, so records and ledger were not read")
		return d, nil
	}
	store := api.store
	if store == nil {
		settings := Settings{Env: api.Env, Lookuper: lookuper, Unwrapped: unwrapped}
		if store, _, err = openStore(Config{Settings: settings}, func(string, string, string, time.Duration) {}, api.Redactor, slog.New(slog.DiscardHandler)); err != nil {
			return nil, err
		}
	}
	if err := d.readLedger(ctx, store, api.Env.Ledger()); err != nil {
		d.Lacks = append(d.Lacks, "the ledger could not be read, so keys that rekeyd has may be proposed: "+err.Error())
	}
	if err := d.readRecords(ctx, store, under, api.Env.Ledger()); err != nil {
		d.Lacks = append(d.Lacks, "not all records could be read: "+err.Error())
	}
	return d, nil
}

// readLedger finds the keys that this installation has made or adopted.
func (d *Discovery) readLedger(ctx context.Context, store ledger.Store, root ledger.Ref) error {
	doc, err := store.Read(ctx, root.Join("owner"), 0)
	if err != nil {
		return err
	}
	owner, _ := doc.Fields()["owner"].(string)
	names, err := store.List(ctx, root.Join("policies"))
	if err != nil {
		return err
	}
	d.Policies = names
	for i, name := range names {
		rotator.Progress(ctx, i, len(names))
		doc, err := store.Read(ctx, root.Join("policies").Join(name), 0)
		if err != nil {
			return err
		}
		if doc.JSON == nil {
			continue
		}
		entry, err := ledger.ParseEntry(doc.JSON, name)
		if err != nil {
			return fmt.Errorf("reading the ledger entry of policy %s: %w", name, err)
		}
		owner = entry.Owner
		for k := range entry.Keys() {
			if found := d.Keys[k.ID]; found != nil && entry.MovedTo == "" {
				found.Policy = name
			}
		}
	}
	for _, a := range d.Accounts {
		for _, k := range a.Keys {
			switch made, policy, _, ours := ledger.ParseKeyName(k.Name); {
			case ours && made == owner:
				d.Keys[k.ID].Policy = policy
			case ours && d.Keys[k.ID].Policy == "":
				d.Keys[k.ID].Others = made
			}
		}
	}
	return nil
}

// readRecords finds the records that hold a key that could be adopted. What cannot be listed or read is left out, and the error
// is the last.
func (d *Discovery) readRecords(ctx context.Context, store ledger.Store, under, root ledger.Ref) error {
	refs, refused := d.list(ctx, store, under, root)
	var values []recordValue
	for i, ref := range refs {
		rotator.Progress(ctx, i, len(refs))
		d.Records[ref] = true
		doc, err := store.Read(ctx, ref, 0)
		if err != nil {
			refused = err
			continue
		}
		values = append(values, valuesOf(ref, doc)...)
	}
	d.match(values)
	return refused
}

// recordValue is a field of a record that may be a secret, of which it has the end.
type recordValue struct {
	sink  ledger.Sink
	view  plan.RecordView
	keyID string // that the record names
}

func valuesOf(ref ledger.Ref, doc ledger.Doc) []recordValue {
	var values []recordValue
	for _, field := range slices.Sorted(maps.Keys(doc.Fields())) {
		rec := ledger.ParseRecord(doc, field)
		ending := plan.Ending(rec.Secret.Reveal())
		if ending != "" && !slices.Contains(ledger.RecordFields(), field) {
			values = append(values, recordValue{ledger.Sink{Ref: ref, Field: field}, plan.RecordView{HasValue: true, Ending: ending}, rec.KeyID})
		}
	}
	return values
}

// match finds the key of each value: first by the key_id beside it, then by the hints of the keys that are left.
func (d *Discovery) match(values []recordValue) {
	for _, v := range values {
		for _, a := range d.Accounts {
			for _, k := range a.Keys {
				if k.ID == v.keyID && v.view.Fit(k.Hint) != plan.HintDiffers {
					d.Keys[k.ID].Held = append(d.Keys[k.ID].Held, Holder{v.sink, false})
				}
			}
		}
	}
	var left []elevenlabs.Key
	for _, a := range d.Accounts {
		for _, k := range a.Keys {
			if len(d.Keys[k.ID].Held) == 0 {
				left = append(left, k)
			}
		}
	}
	for _, v := range values {
		if d.Keys[v.keyID] != nil {
			continue
		}
		var fit []string
		for _, k := range left {
			if v.view.Fit(k.Hint) == plan.HintFits {
				fit = append(fit, k.ID)
			}
		}
		for _, id := range fit {
			if len(fit) == 1 {
				d.Keys[id].Held = append(d.Keys[id].Held, Holder{v.sink, true})
			} else {
				d.Keys[id].Maybe = append(d.Keys[id].Maybe, Holder{v.sink, true})
			}
		}
	}
}

// list returns the records at and below a path, without the ledger.
func (d *Discovery) list(ctx context.Context, store ledger.Store, under, root ledger.Ref) (refs []ledger.Ref, refused error) {
	for folders := []ledger.Ref{under}; len(folders) > 0; folders = folders[1:] {
		names, err := store.List(ctx, folders[0])
		if err != nil {
			refused = err
		}
		for _, name := range names {
			folder, isFolder := strings.CutSuffix(name, "/")
			switch ref := folders[0].Join(folder); {
			case ref == root:
			case isFolder:
				folders = append(folders, ref)
			case len(refs) == maxRecords:
				return refs, fmt.Errorf("there are more than %d below %s", maxRecords, under)
			default:
				refs = append(refs, ref)
			}
		}
	}
	return refs, refused
}

// Proposable returns the account's keys that a policy could take over: neither disabled nor rekeyd's.
func (d *Discovery) Proposable(a elevenlabs.ServiceAccount) []elevenlabs.Key {
	return slices.DeleteFunc(slices.Clone(a.Keys), func(k elevenlabs.Key) bool {
		return k.Disabled || d.Keys[k.ID].Policy != "" || d.Keys[k.ID].Others != ""
	})
}

// Keyless reports whether an account has no enabled key, and none of rekeyd's.
func (d *Discovery) Keyless(a elevenlabs.ServiceAccount) bool {
	return !slices.ContainsFunc(a.Keys, func(k elevenlabs.Key) bool { return !k.Disabled || d.Keys[k.ID].Policy != "" })
}
