package simulation_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// Some seeds have a second workspace, and rotate the admin key of the first.

const (
	otherKey     = "sk_admin_of_the_other_workspace"
	adminAccount = "svcacc_admin"
)

func baseURL(workspace string) string {
	return "http://127.0.0." + map[string]string{"default": "1", "other": "2"}[workspace]
}

// moreWorkspaces makes the second workspace, and the key that a person made to be the first one's admin key. The key
// with which the simulator was started is then that of a person in the console.
func (w *world) moreWorkspaces() (byHand elevensim.Key) {
	if w.seed%5 != 2 {
		return byHand
	}
	w.hits["start × admin key"]++
	w.other = elevensim.New(elevensim.Options{AdminKey: otherKey, Seed: w.seed + 1<<32, HistoryLimit: 1,
		Accounts: []elevensim.Account{{ID: "svcacc_a", Name: "a"}, {ID: "svcacc_b", Name: "b"}}})
	w.api = byHost{"127.0.0.1": elevensim.Transport(w.sim), "127.0.0.2": elevensim.Transport(w.other)}
	err := w.sim.AddAccount(elevensim.Account{ID: adminAccount, Name: "admin"})
	var secret string
	if err == nil {
		_, secret, err = w.sim.AddKey(adminAccount, elevensim.KeySpec{Name: "by hand", Permissions: []string{"service_account_write"}})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	byHand, _ = w.sim.KeyBySecret(secret)
	return byHand
}

type byHost map[string]http.RoundTripper

func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	return b[r.URL.Host].RoundTrip(r)
}

// addAdmin has the admin key that a person put in place be a policy's, and one policy live in the other workspace.
func (w *world) addAdmin(byHand elevensim.Key) {
	if w.other == nil {
		return
	}
	w.policies[1].Workspace = "other"
	w.oracle.records[w.policies[1].Sink.String()].policy.Workspace = "other"
	schedule, err := schedule.Parse("@every 9h", "UTC")
	if err != nil {
		w.t.Fatal(err)
	}
	p := w.policies[0]
	p.Name, p.AdminOf, p.ServiceAccount, p.Schedule, p.Adopt = "admin", "default", adminAccount, schedule, byHand.ID
	p.Settings.Permissions.Names, p.Settings.Optional = []string{"service_account_write"}, elevenlabs.Optional{}
	p.Settings.AllowedIPs = nil
	p.Overlap = 2*reconcile + time.Duration(w.rng.IntN(90))*time.Minute
	p.Sink.Mount, p.Sink.Path = "secret", recordPrefix+p.Name
	p.Probes, p.WaitUntilUsed = nil, 0
	w.admin = &p
	w.policies = slices.Insert(w.policies, 2, p) // the last may be removed, and the second have a key from the start
	w.put(p.Sink.String(), func(d map[string]any) { d["api_key"] = byHand.Secret })
	o := w.oracle
	o.records[p.Sink.String()] = newRecord(p)
	o.keys[byHand.ID] = &life{Key: byHand, listed: true, space: p.Workspace, account: p.ServiceAccount}
	o.adopt(p, o.keys[byHand.ID])
}

// bearable reports what may be done to an admin key without a person having to put another in its place.
func bearable(what string) bool {
	return slices.Contains([]string{"foreign field", "drift", "foreign key", "edit policy", "rotate", "rotate --revoke-now", "rollback", "prune", "remove policy"}, what)
}

// sims returns the workspaces by their names.
func (w *world) sims() map[string]*elevensim.Server {
	all := map[string]*elevensim.Server{"default": w.sim}
	if w.other != nil {
		all["other"] = w.other
	}
	return all
}

// at is where a key lives.
func (w *world) at(k *life) *elevensim.Server { return w.sims()[k.space] }

// accountOf is that of the key which the call under way makes.
func (w *world) accountOf() string {
	_, rest, _ := strings.Cut(w.path, "/service-accounts/")
	account, _, _ := strings.Cut(rest, "/")
	return account
}

func (w *world) home(p plan.Policy) *elevensim.Server { return w.sims()[p.Workspace] }

func (w *world) newClients(r *replica, store ledger.Store) map[string]*elevenlabs.Client {
	clients := map[string]*elevenlabs.Client{}
	for _, name := range slices.Sorted(maps.Keys(w.sims())) {
		cred := elevenlabs.NewCredential(nil)
		cred.Use(reconcile, func(ctx context.Context) (secret.Secret, error) { return w.readAdminKey(ctx, name, store) })
		c, err := elevenlabs.New(elevenlabs.Options{BaseURL: baseURL(name), Transport: r.gate, Timeout: r.patience(), Credential: cred.Get, Reread: cred.Reread, Rate: w.profile.budget})
		if err != nil {
			w.t.Fatal(err)
		}
		clients[name] = c
	}
	return clients
}

func (w *world) readAdminKey(ctx context.Context, workspace string, store ledger.Store) (secret.Secret, error) {
	switch {
	case workspace == "other":
		return secret.New(otherKey), nil
	case w.admin == nil:
		return secret.New(adminKey), nil
	}
	doc, err := store.Read(ctx, w.admin.Sink.Ref, 0)
	if err != nil {
		return secret.Secret{}, err
	}
	key, _ := doc.Fields()["api_key"].(string)
	if key == "" {
		return secret.Secret{}, errors.New("there is no admin key")
	}
	return secret.New(key), nil
}

// checkWorkspace wants every key to be touched in the workspace of its policy, and no admin key ever patched by us.
func (o *oracle) checkWorkspace(workspace string, c elevensim.Change, k *life) {
	if o.w.admin == nil {
		return
	}
	if k.ours && k.space != workspace {
		o.violated("key %s of policy %s: %s in workspace %s", short(k.ID), k.policy, c.Kind, workspace)
	}
	person := c.By == elevensim.AdminID || c.By == elevensim.ByManagement
	gone := c.Key.Disabled || c.Kind == elevensim.Deleted // to be enabled again for a rollback does no harm
	if c.By == k.ID && !k.replaced.IsZero() && gone {
		o.violated("admin key %s: %s by itself, so its successor was not in use", short(k.ID), c.Kind)
	}
	same := slices.Equal(k.Permissions, c.Key.Permissions) && k.CharacterLimit == c.Key.CharacterLimit
	if k.policy == o.w.admin.Name && c.Kind == elevensim.Patched && !person && !same {
		o.violated("admin key %s was patched", short(k.ID))
	}
}

// called is told of each call and its true answer: who uses which admin key, and whether it still works.
func (o *oracle) called(g *gate, req *http.Request, step string, resp *http.Response, err error) {
	a := o.w.admin
	if a == nil || err != nil {
		return
	}
	now := time.Now()
	if o.readsAdminKey(req, step) && resp.StatusCode == http.StatusOK {
		g.looked = now
	}
	if isVault(req) || req.URL.Host != "127.0.0.1" || step == "verify read" || step == "probe read" {
		return
	}
	k := o.bySecret(req.Header.Get("xi-api-key"))
	switch {
	case k == nil:
		o.violated("r%d.%d uses a key of another workspace", g.replica, g.life)
	case k.policy != a.Name:
		o.violated("r%d.%d uses key %s of policy %s as an admin key", g.replica, g.life, short(k.ID), k.policy)
	case resp.StatusCode == http.StatusOK:
		k.listed = k.listed || step == "list accounts"
		g.refused = time.Time{}
		o.checkStale(g, k)
	case resp.StatusCode != http.StatusUnauthorized || k.published.IsZero(): // one that is on trial
	case g.refused.IsZero():
		g.refused = now
	case now.Sub(g.refused) > 2*reconcile && g.looked.After(g.refused):
		o.violated("r%d.%d has had no working admin key for %s", g.replica, g.life, now.Sub(g.refused))
		g.refused = now.Add(24 * time.Hour) // said once
	}
}

func (o *oracle) readsAdminKey(req *http.Request, step string) bool {
	a := o.w.admin
	return a != nil && step == "record read" && strings.HasSuffix(req.URL.Path, "/data/"+a.Sink.Path)
}

// checkStale wants a replica that could look to have noticed a new admin key within two reconcile intervals.
func (o *oracle) checkStale(g *gate, k *life) {
	since := time.Since(k.replaced)
	// A rollback tries the old key out; and what a replica could not read it cannot know.
	excused := g.command != nil || g.frozen.After(k.replaced) || g.missed.After(k.replaced)
	if !k.replaced.IsZero() && !excused && since > 2*reconcile+time.Minute && g.looked.After(k.replaced) {
		o.violated("r%d.%d still uses admin key %s, which was replaced %s ago", g.replica, g.life, short(k.ID), since)
	}
}
