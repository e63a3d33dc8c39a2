package simulation_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bug is one mistake, made in a copy of the source for one build of this test.
type bug struct {
	name, file string // below rotator
	old, new   string
	seeds      int    // within which it must be found
	profile    string // what each seed's profile is to have; "": as it is drawn
	seed       uint64 // the first that found it when all were last looked for; it is tried first
}

func bugs() []bug {
	return []bug{
		{"delete the old key when the overlap ends", "retire.go", "err = j.send(ctx, call, key.KeyRef)\n\tgone :=", "err = j.sendNow(ctx, ledger.CallDelete, key.KeyRef)\n\tgone :=", 300, "", 1},
		{"retire the old key before the new one is published", "rotate.go", "if err := j.publish(ctx, pub, rec); err != nil {", "if old := j.entry().Current; old != nil {\n\t\toff := false\n\t\t_ = j.api.UpdateKey(ctx, old.Account, old.ID, elevenlabs.Update{Name: old.Name, Enabled: &off})\n\t}\n\tif err := j.publish(ctx, pub, rec); err != nil {", 300, "", 1},
		{"blind retry of the create", "rotate.go", "c, err := j.api.CreateKey(ctx, in.Account, in.KeyName, settings)", "c, err := j.api.CreateKey(ctx, in.Account, in.KeyName, settings)\n\tif err != nil {\n\t\tc, err = j.api.CreateKey(ctx, in.Account, in.KeyName, settings)\n\t}", 1000, "", 5},
		{"publish without check-and-set", "rotate.go", "written, failure := j.r.opt.Store.Write(ctx, pub.Sink.Ref, rec.With(pub), rec.Doc.Version)", "last, _ := j.r.opt.Store.Read(ctx, pub.Sink.Ref, 0)\n\t\twritten, failure := j.r.opt.Store.Write(ctx, pub.Sink.Ref, rec.With(pub), last.Version)", 2000, "", 30},
		{"takeover without a fence", "recover.go", "if err == nil && (rec.Publishes(in.KeyName) || !j.unsure) {", "if err == nil {", 2000, "", 6},
		{"sweep without evidence", "plan/plan.go", "if ok && owner == o.Entry.Owner && (o.Entry.IsAbandoned(k.ID, rotation) || o.twin(k.ID, rotation)) && k.CharacterCount == 0 {", "if ok && owner == o.Entry.Owner && !o.Entry.Knows(k.ID, rotation) {", 2000, "", 1},
		{"sweep without a look at the owner", "plan/plan.go", "if ok && owner == o.Entry.Owner && (o.Entry.IsAbandoned(k.ID, rotation) || o.twin(k.ID, rotation)) && k.CharacterCount == 0 {", "if ok && owner == o.Entry.Owner && o.Entry.IsAbandoned(k.ID, rotation) || !ok && k.Name == \"by hand\" {", 1000, "", 2},
		{"commit without reading back", "rotate.go", "case err == nil && now.Publishes(pub.Name) && now.Secret.Reveal() == pub.Secret.Reveal():", "case failure == nil || ledger.MaybeWritten(failure):", 1000, "", 1},
		{"retire from a cached ledger and record", "retire.go", "err = j.mayRetire(ctx, s.Action, key.KeyRef)", "err = nil", 2000, "", 21},
		{"forget a delete that failed", "retire.go", "if err != nil && !gone {", "if s.Action == plan.ActDelete {\n\t\tgone = true\n\t}\n\tif err != nil && !gone {", 1000, "", 7},
		{"forget an abandoned rotation", "ledger/entry.go", "e.Abandoned = append(e.Abandoned, Abandoned{in.Rotation, in.KeyName, in.Workspace, in.Account, now, \"\", false})", "_ = now", 1000, "", 3},
		{"believe a listing that lags", "recover.go", "if found || (err == nil && (j.lost.IsZero() || time.Since(j.lost) > j.r.opt.VerifyTimeout)) {\n\t\t\treturn key, found, nil", "if err == nil {\n\t\t\tj.entry().Intent = nil\n\t\t\treturn key, found, nil", 2000, "", 1},
		{"time claims by the wall clock", "observed.go", "o.ClaimExpired = !o.ClaimOurs && time.Since(x.claimSince) >= c.Lasts(r.opt.ClaimTTL)", "o.ClaimExpired = !o.ClaimOurs && r.opt.Wall().Sub(c.Since) >= min(r.opt.ClaimTTL, time.Hour)", 1000, "wrong,crash,asks,do=request,do=request", 167},
		{"take every claim over at once", "observed.go", "o.ClaimExpired = !o.ClaimOurs && time.Since(x.claimSince) >= c.Lasts(r.opt.ClaimTTL)", "o.ClaimExpired = !o.ClaimOurs && time.Since(x.claimSince) >= 0", 1000, "", 69},
		{"publish without verifying", "rotate.go", "if result == elevenlabs.Valid {\n\t\t\treturn nil", "if result != elevenlabs.Inconclusive {\n\t\t\treturn nil", 1000, "", 4},
		{"claim without check-and-set", "job.go", "version, err := j.r.opt.Store.Write(ctx, j.r.entryRef(j.p.Name), next, k.version)", "last, _ := j.r.opt.Store.Read(ctx, j.r.entryRef(j.p.Name), 0)\n\t\tversion, err := j.r.opt.Store.Write(ctx, j.r.entryRef(j.p.Name), next, last.Version)", 1000, "", 1},
		{"drop the fields of others", "ledger/record.go", "data := maps.Clone(r.Fields)\n\tif data == nil {", "data := maps.Clone(r.Fields)\n\tclear(data)\n\tif data == nil {", 2000, "", 32},
		{"cut the overlap short", "plan/due.go", "end := now.Add(p.Overlap)", "end := now.Add(p.Overlap)\n\tnow = now.Add(-p.Overlap)\n\tend = now", 300, "", 1},
		{"skip the quarantine", "retire.go", "r.State, r.Until = ledger.InQuarantine, j.now().Add(time.Duration(r.Quarantine))", "r.State, r.Until = ledger.InQuarantine, j.now()", 300, "", 1},
		{"overwrite what nobody knows", "plan/plan.go", "\treturn d.fail(FaultRecordChanged, \"%s holds a value that rekeyd did not put there;", "\tif true {\n\t\treturn planRotation(p, o, now, ledger.TriggerRecordMissing, d), true\n\t}\n\treturn d.fail(FaultRecordChanged, \"%s holds a value that rekeyd did not put there;", 2000, "", 11},
		{"roll forward nothing", "recover.go", "if past.found && (!in.Rollback", "if false && past.found && (!in.Rollback", 1000, "", 7},
		{"take what cannot be read for unpublished", "recover.go", "case found && past.hidden:", "case false:", 2000, "", 335},
		{"leave a claim for ever", "plan/plan.go", "case o.ClaimExpired:\n\t\tstep.Reason", "case false:\n\t\tstep.Reason", 1000, "", 5},
		{"forget the old key", "rotate.go", "e.Retiring = append(e.Retiring, j.retiringOf(*old, in.Reason, c.Published, c.previousUntil))", "_ = e.Retiring", 300, "", 1},
		{"prove an admin key as any other", "admin.go", "if j.p.AdminOf != \"\" {\n\t\task = api.ProbeAdmin", "if false {\n\t\task = api.ProbeAdmin", 300, "", 2},
		{"patch the drift of an admin key", "plan/plan.go", "if p.AdminOf != \"\" && answer == DriftPatch {", "if false {", 1000, "", 62},
		{"retire the old admin key before every replica has the new one", "plan/due.go", "end := now.Add(p.Overlap)", "end := now.Add(p.Overlap)\n\tif p.AdminOf != \"\" {\n\t\tend = now\n\t}", 300, "", 2},
		{"never look for a new admin key", "../elevenlabs/credential.go", "!c.readAt.IsZero() && time.Since(c.readAt) < c.keep", "!c.readAt.IsZero()", 300, "", 12},
		{"rotate before it is due", "plan/due.go", "due = next.Add(schedule.SplayOf(p.Name, p.Splay))", "due = next.Add(schedule.SplayOf(p.Name, p.Splay) - 4*time.Hour)", 300, "", 1},

		{"hold a group for ever", "group.go", "if e == nil || !e.HoldsGroup(h, r.manages(name), r.opt.Wall()) {", "if e == nil {", 300, "", 1},
		{"take a group without check-and-set", "group.go", "_, err = j.r.opt.Store.Write(ctx, j.r.groupRef(j.p.Group), ", "last, _ := j.r.opt.Store.Read(ctx, j.r.groupRef(j.p.Group), 0)\n\tversion = last.Version\n\t_, err = j.r.opt.Store.Write(ctx, j.r.groupRef(j.p.Group), ", 2000, "", 87},
		{"give a group back at commit", "ledger/group.go", "return k.State == InOverlap && now.Before", "return false && now.Before", 300, "", 1},
		{"overlook who went ahead of its group", "ledger/group.go", "return k.State == InOverlap && now.Before", "return k.State == InOverlap && k.Reason == TriggerSchedule && now.Before", 2000, "", 104},
		{"forget who could not note itself in its group", "group.go", "if st.policy.Group == p.Group && !slices", "if false && !slices", 2000, "do=corrupt group", 2},
		{"prolong an overlap without bound", "plan/plan.go", "until = r.Until.Add(wait)", "until = r.Until.Add(wait)\n\tif true {\n\t\treturn until.Add(1000 * time.Hour), missing\n\t}", 1000, "", 1},
		{"take a key that nobody watched for idle", "plan/plan.go", "if slices.Contains(o.Idle, r.ID) {", "if !slices.Contains(o.InUse, r.ID) {", 2000, "", 13},

		// What a call that arrives late, a clock that stands still or another TTL turns into harm.
		{"publish over a fence", "rotate.go", "\treturn j.write(ctx, j.takeClaim)\n", "\treturn nil\n", 2000, "suspended,late,do=rotate", 6},
		{"take a lost publish for one that never happened", "rotate.go", "j.unsure = j.unsure || failure == nil || ledger.MaybeWritten(failure)", "_ = ledger.MaybeWritten(failure)", 2000, "late", 15},
		{"share a listing that began before it was asked for", "../elevenlabs/share.go", "\tif s.open == r {\n\t\ts.open = nil\n\t}\n\ts.last = time.Now()", "\ttime.AfterFunc(time.Minute, func() {\n\t\ts.mu.Lock()\n\t\tdefer s.mu.Unlock()\n\t\tif s.open == r {\n\t\t\ts.open = nil\n\t\t}\n\t})\n\ts.last = time.Now()", 2000, "scarce", 7},
		{"rest on a listing from before the claim", "retire.go", "if keys, err = api.Keys(ctx, key.Account); err != nil {\n\t\t\treturn false, err\n\t\t}", "j.r.mu.Lock()\n\t\tkeys = j.r.workspaces[key.Workspace].listing.accounts[key.Account]\n\t\tj.r.mu.Unlock()\n\t\t_ = api\n\t\tif err != nil {\n\t\t\treturn false, err\n\t\t}", 1000, "", 1},
		{"retire from a lagging read", "retire.go", "if what == plan.ActDelete || !j.r.mayLag(ctx) {", "if rec.Doc.Version > 0 {", 2000, "unindexed", 176},
		{"settle from a lagging read", "recover.go", "_, err = j.r.opt.Store.Write(ctx, in.Sink.Ref, data, rec.Doc.Version)", "_ = data", 2000, "unindexed,crash", 6},
		{"take a lagging read for a restore", "newest.go", "case errors.Is(err, ledger.ErrConflict) && !r.lags.Load():\n", "case errors.Is(err, ledger.ErrConflict) && doc.JSON != nil:\n\t\treturn doc, true, nil\n\tcase errors.Is(err, ledger.ErrConflict) && !r.lags.Load():\n", 2000, "unindexed", 12},
		{"disable without a note", "retire.go", "e.Key(s.KeyID).Note(call) })", "_ = call })", 1000, "late,do=rollback,do=vault kv rollback", 1},
		{"lose the notes of others' calls", "ledger/calls.go", "return c.ID == id && id != \"\" })", "return true })", 2000, "late,do=rollback,do=vault kv rollback", 2},
		{"put a key back whose delete is outstanding", "ledger/calls.go", "return k.Outstanding(CallDelete, time.Time{})", "return k != nil && k.Outstanding(CallDelete, time.Time{}) && false", 2000, "late,do=rollback,do=vault kv rollback", 7},
		{"leave a late disable", "plan/plan.go", "if c.Outstanding(ledger.CallDisable, now) {", "if false {", 1000, "late,do=rollback,do=vault kv rollback", 2},
		{"leave a late enable", "plan/plan.go", "case enabled && r.Outstanding(ledger.CallEnable, now):", "case false:", 2000, "late,do=rollback,do=rotate --revoke-now", 25},
		{"forget an abandoned rotation after five minutes", "ledger/entry.go", "const abandonedFor = 48 * time.Hour", "const abandonedFor = 5 * time.Minute", 1000, "late", 4},
		{"take a 5xx of Vault for a refusal", "../sinks/vault_error.go", "e.MaybeApplied, e.Advice = writes, \"see Vault's server log\"", "e.Advice = \"see Vault's server log\"", 2000, "late", 4},

		// … and what others do.
		{"leave the twin of a doubled create", "plan/plan.go", "|| o.twin(k.ID, rotation)", "|| false", 300, "doubled", 2},
		{"correct an entry that was read anew since", "observe.go", "\tif read {\n\t\tr.absorb(st)\n\t\to = r.observed(st, p, ws)\n\t}\n\tif e := mended(p, o, r.opt.Wall()); e != nil {", "\tbefore := o\n\tif read {\n\t\tr.absorb(st)\n\t\to = r.observed(st, p, ws)\n\t}\n\tif e := mended(p, before, r.opt.Wall()); e != nil {", 2000, "", 482},
		{"retire under another's claim", "retire.go", "if !j.stillPlanned(s) {", "if j.entry() == nil || j.entry().RetiringKey(s.KeyID) == nil {", 2000, "crash,late", 12},
		{"retire though the current key does not work", "retire.go", "\treturn j.currentWorks(ctx, c, rec.Secret)", "\t_ = rec\n\treturn nil", 2000, "do=person disables and enables", 1},
		{"adopt a key that is another policy's", "adopt.go", "if !ledger.ValidKeyID(key.ID) {", "if true {\n\t\treturn \"\", nil\n\t}\n\tif !ledger.ValidKeyID(key.ID) {", 2000, "adopt", 1},
		{"take the refusal of one mount for an outage of all", "outage.go", "for _, place := range mounts {", "for place := range b.outages {", 1000, "team", 7},
		{"carry over from the wrong key", "plan/settings.go", "\t\treturn k.Settings.Optional\n", "\t\tif len(o.Entry.Retiring) > 0 {\n\t\t\tk, _ = o.Key(o.Entry.Retiring[0].ID)\n\t\t}\n\t\treturn k.Settings.Optional\n", 300, "", 3},
		{"carry over nothing", "plan/settings.go", "settings = p.Settings.Or(CurrentSettings(o))", "settings = p.Settings.Optional", 300, "", 1},
		{"forget what a key that is not listed has", "plan/settings.go", "\treturn o.Entry.Current.Settings.Optional()\n}", "\treturn elevenlabs.Optional{}\n}", 2000, "", 7},
		{"patch what the policy does not manage", "../elevenlabs/wire.go", "w.optionalFields = s.bodyFields(clearIt)", "w.optionalFields = optionalFields{clearIt, clearIt, clearIt, clearIt}", 1000, "", 21},
		{"disable what a person enabled in quarantine", "plan/plan.go", "case enabled && r.Outstanding(ledger.CallEnable, now):", "case enabled:", 1000, "do=enable quarantined key", 3},

		// … and what only looks like evidence.
		{"ignore a failed probe", "rotate.go", "probes, err := j.probePaths(ctx, secret)\n\tif err != nil {", "probes, err := j.probePaths(ctx, secret)\n\tif false {", 300, "probes", 1},
		{"publish before probing", "rotate.go", "probes, err := j.probePaths(ctx, secret)\n", "_ = j.publish(ctx, j.publication(in, key, secret), rec)\n\tprobes, err := j.probePaths(ctx, secret)\n", 300, "probes", 1},
		{"note an answer that no probe had", "rotate.go", "if err := j.publish(ctx, pub, rec); err != nil {", "probes = append(probes, ledger.ProbeAnswer{Path: \"/v1/voices\", Status: 200})\n\tif err := j.publish(ctx, pub, rec); err != nil {", 300, "", 1},
		{"end an overlap though the new key was not used", "plan/plan.go", "if o.Used {", "if true {", 300, "waits", 1},
		{"end an overlap on a counter that began anew", "observed.go", "key.CharacterCount > k.credits // a", "key.CharacterCount != k.credits // a", 2000, "waits,months,do=rollback", 42},
		{"take what a key cost before it was put back for use", "observed.go", "&& history[n-1].Reason != ledger.TriggerRollback &&", "&&", 2000, "waits,do=rollback", 33},
		{"forget that a key was replaced and put back", "state.go", "|| last != k.lastPublished {", "|| false && last != 0 {", 2000, "waits,do=rollback", 42},
		{"note a rejection without an answer", "probe.go", "\t\treturn ledger.Rejected\n\t}\n\treturn \"\"", "\t\treturn ledger.Rejected\n\t}\n\treturn ledger.Rejected", 300, "", 3},
		{"take the first proof for the last", "ledger/history.go", "return p == \"\" || p == StillAccepted", "return p == \"\"", 300, "disablelag", 3},
		{"leave a rotation out of the history", "rotate.go", "\t\te.Remember(past)\n", "\t\tif !c.recovered {\n\t\t\te.Remember(past)\n\t\t}\n", 1000, "", 7},
		{"keep the words of a person as they are", "ledger/history.go", "if LooksSecret(w) {", "if w == \"\" {", 300, "do=rotate", 1},
		{"say of a leaked secret that it is no key of ours", "leaked.go", "\tentries, ledgerErr := r.entries(ctx)\n\tl, _ := leakedIn(entries, s)\n", "\tentries, ledgerErr := r.entries(ctx)\n\tl, _ := leakedIn(entries, s)\n\tif l.Known {\n\t\treturn Leak{}, nil\n\t}\n", 2000, "", 10},
		{"sweep a key that was in use once its counter begins anew", "recover.go", "note(e); e.Spare(key.Name) })", "note(e) })", 2000, "months,waits,do=restore Vault", 30},
	}
}

// TestTheOracleFindsSeededBugs makes each mistake in turn and wants it found. A mistake that is not found is a check
// that the oracle lacks, or a situation that the chaos never makes.
func TestTheOracleFindsSeededBugs(t *testing.T) {
	if os.Getenv("REKEYD_SEEDED_BUGS") == "" {
		t.Log("set REKEYD_SEEDED_BUGS=1 to run it; make simulate does")
		return
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bugs() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			binary := build(t, root, b)
			if b.foundBy(t, binary, b.seed, 1) {
				return
			}
			for from, n := 1, min(b.seeds, 100); from <= b.seeds; from, n = from+n, min(2*n, b.seeds) {
				if b.foundBy(t, binary, uint64(from), n) {
					return
				}
			}
			t.Errorf("not found within %d seeds", b.seeds)
		})
	}
}

func (b bug) foundBy(t *testing.T, binary string, from uint64, n int) bool {
	t.Helper()
	r := simulate(t, binary, from, n, 1, b.profile)
	for seed, what := range r.Failed {
		line, _, _ := strings.Cut(what, "\n")
		t.Logf("found by seed %d (noted: %d): %s", seed, b.seed, line)
	}
	return len(r.Failed) > 0
}

// TestSeededBugsFitTheSource: each can be made in the code as it is now.
func TestSeededBugsFitTheSource(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bugs() {
		t.Run(b.name, func(t *testing.T) { b.source(t, root) })
	}
}

// source returns the file in which the bug is made, and its text, which holds what the bug replaces once.
func (b bug) source(t *testing.T, root string) (file, text string) {
	t.Helper()
	file = filepath.Join(root, "rotator", b.file)
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), b.old); n != 1 {
		t.Fatalf("%s holds the text that the bug replaces %d times, not once: %q", b.file, n, b.old)
	}
	return file, string(source)
}

// build compiles this package over a copy of the source that has the bug.
func build(t *testing.T, root string, b bug) string {
	t.Helper()
	file, source := b.source(t, root)
	dir := t.TempDir()
	changed, overlay, binary := filepath.Join(dir, filepath.Base(b.file)), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "simulation.test")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte) {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(changed, []byte(strings.Replace(source, b.old, b.new, 1)))
	write(overlay, text)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, "./internal/simulation")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building with the bug: %v\n%s", err, out)
	}
	return binary
}
