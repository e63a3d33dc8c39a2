package sinks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// fixture is a store with what a person could do to its documents behind its back.
type fixture struct {
	store  ledger.Store
	mount  string
	edit   func(t *testing.T, ref ledger.Ref, data map[string]any)
	remove func(t *testing.T, ref ledger.Ref) // the newest version; the document's history stays
}

func (f fixture) ref(path string) ledger.Ref { return ledger.Ref{Mount: f.mount, Path: path} }

// contract is what rotator relies on, whatever the store. Each test has a mount of its own.
func contract(t *testing.T, open func(t *testing.T) fixture) {
	for name, test := range map[string]func(*testing.T, fixture){
		"nothing there":      testNothingThere,
		"versions count":     testVersionsCount,
		"conflict":           testConflict,
		"old version":        testOldVersion,
		"removed by hand":    testRemovedByHand,
		"edited by hand":     testEditedByHand,
		"values":             testValues,
		"large value":        testLargeValue,
		"odd names":          testOddNames,
		"refused names":      testRefusedNames,
		"list":               testList,
		"check":              testCheck,
		"cancelled":          testCancelled,
		"concurrent writers": testConcurrentWriters,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func testNothingThere(t *testing.T, f fixture) {
	wantDoc(t, f, "none", nil, 0)
	wantDoc(t, f, "none/below", nil, 0)
	doc, err := f.store.Read(t.Context(), f.ref("none"), 3)
	if err != nil || doc.JSON != nil || doc.Version != 0 {
		t.Errorf("version 3 of nothing: %v, %v", doc, err)
	}
	wantConflict(t, f, "none", 1)
	if names, err := f.store.List(t.Context(), f.ref("none")); err != nil || len(names) != 0 {
		t.Errorf("listing nothing: %q, %v", names, err)
	}
}

func testVersionsCount(t *testing.T, f fixture) {
	for v := range 3 {
		wantWrite(t, f, "a", map[string]any{"n": fmt.Sprint(v)}, v)
		wantDoc(t, f, "a", map[string]any{"n": fmt.Sprint(v)}, v+1)
	}
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 3) // the same again is a version too
	wantDoc(t, f, "a", map[string]any{"n": "2"}, 4)
	wantWrite(t, f, "a/below", map[string]any{"other": "document"}, 0)
	wantDoc(t, f, "a", map[string]any{"n": "2"}, 4)
}

func testConflict(t *testing.T, f fixture) {
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	wantConflict(t, f, "a", 0)
	wantConflict(t, f, "a", 2)
	wantDoc(t, f, "a", map[string]any{"n": "1"}, 1)
}

func testOldVersion(t *testing.T, f fixture) {
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
	doc, err := f.store.Read(t.Context(), f.ref("a"), 2)
	if err != nil || doc.Version != 2 || doc.Fields()["n"] != "2" {
		t.Errorf("the newest by its number: %v, %v", doc, err)
	}
	doc, err = f.store.Read(t.Context(), f.ref("a"), 1)
	if err != nil || doc.JSON != nil && doc.Fields()["n"] != "1" {
		t.Errorf("an old version is itself or nothing: %v, %v", doc, err)
	}
	doc, err = f.store.Read(t.Context(), f.ref("a"), 9)
	if err != nil || doc.JSON != nil || doc.Version != 0 {
		t.Errorf("a version to come: %v, %v", doc, err)
	}
}

func testRemovedByHand(t *testing.T, f fixture) {
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
	f.remove(t, f.ref("a"))
	doc, err := f.store.Read(t.Context(), f.ref("a"), 0)
	if err != nil || doc.JSON != nil || doc.Version < 2 {
		t.Fatalf("after removal: %v, %v", doc, err)
	}
	wantConflict(t, f, "a", 0)
	wantConflict(t, f, "a", 1)
	wantWrite(t, f, "a", map[string]any{"n": "3"}, doc.Version)
	wantDoc(t, f, "a", map[string]any{"n": "3"}, doc.Version+1)
}

func testEditedByHand(t *testing.T, f fixture) {
	f.edit(t, f.ref("a"), map[string]any{"by": "hand"})
	wantDoc(t, f, "a", map[string]any{"by": "hand"}, 1)
	wantConflict(t, f, "a", 0)
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 1)
	f.edit(t, f.ref("a"), map[string]any{"by": "hand"})
	wantConflict(t, f, "a", 2)
	f.edit(t, f.ref("a"), map[string]any{"by": "hand", "again": "yes"})
	wantDoc(t, f, "a", map[string]any{"by": "hand", "again": "yes"}, 4)
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 4)
}

func testValues(t *testing.T, f fixture) {
	data := map[string]any{
		"unicode": "blåbær \u2028 \U0001F511 <&>", "empty": "", "null": nil, "yes": true,
		"big": json.Number("9007199254740993"), "list": []any{"a", json.Number("1")},
		"object": map[string]any{"in": map[string]any{"in": "x"}}, "k\"e\\y": "v\n\t",
	}
	want := maps.Clone(data)
	wantWrite(t, f, "a", data, 0)
	if !reflect.DeepEqual(data, want) {
		t.Error("the caller's data was changed")
	}
	doc, err := f.store.Read(t.Context(), f.ref("a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	got := doc.Fields()
	if _, ok := got["big"].(json.Number); !ok {
		t.Errorf("a number came back as %T", got["big"])
	}
	delete(want, "big") // Vault keeps numbers as it likes
	delete(got, "big")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %#v\nwant %#v", got, want)
	}
	wantWrite(t, f, "a", nil, 1)
	wantDoc(t, f, "a", map[string]any{}, 2)
}

func testLargeValue(t *testing.T, f fixture) {
	data := map[string]any{"pem": strings.Repeat("x", 200_000)}
	wantWrite(t, f, "a", data, 0)
	wantDoc(t, f, "a", data, 1)
	for i := range 70 {
		data[fmt.Sprint(i)] = strings.Repeat("y", 500_000)
	}
	_, err := f.store.Write(t.Context(), f.ref("a"), data, 1)
	wantError(t, err, wanted{reason: ledger.FailureSinkTooLarge})
	wantDoc(t, f, "a", map[string]any{"pem": data["pem"]}, 1)
}

func testOddNames(t *testing.T, f fixture) {
	names := []string{"a b", "æøå", "100%", "%2F", "a+b", "q?x=1", "h#f", "a&b=c", "semi;colon", "a.json", "..a", "~", "it's", "a:b", "*"}
	for _, name := range names {
		wantWrite(t, f, "odd/"+name, map[string]any{"name": name}, 0)
	}
	for _, name := range names {
		wantDoc(t, f, "odd/"+name, map[string]any{"name": name}, 1)
	}
	got, err := f.store.List(t.Context(), f.ref("odd"))
	slices.Sort(names)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, names) {
		t.Errorf("listed %q, %v\nwant   %q", got, err, names)
	}
	if err := f.store.Check(t.Context(), f.ref("odd/100%"), f.ref("odd/q?x=1")); err != nil {
		t.Error(err)
	}
}

func testRefusedNames(t *testing.T, f fixture) {
	for _, path := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/..", ".", "a/./b", "a\x00b", "a\nb", `a\b`, "\xff"} {
		for _, ref := range []ledger.Ref{{Mount: f.mount, Path: path}, {Mount: path, Path: "a"}} {
			_, err := f.store.Read(t.Context(), ref, 0)
			wantError(t, err, wanted{reason: ledger.FailureSinkError})
			_, err = f.store.Write(t.Context(), ref, map[string]any{}, 0)
			wantError(t, err, wanted{reason: ledger.FailureSinkError})
			_, err = f.store.List(t.Context(), ref)
			wantError(t, err, wanted{reason: ledger.FailureSinkError})
			wantError(t, f.store.Check(t.Context(), ref), wanted{reason: ledger.FailureSinkError})
		}
	}
}

func testList(t *testing.T, f fixture) {
	for _, path := range []string{"p/b", "p/a", "p/sub/x", "p/a/deep/er", "q"} {
		wantWrite(t, f, path, map[string]any{"n": "1"}, 0)
	}
	for path, want := range map[string][]string{"p": {"a", "a/", "b", "sub/"}, "p/sub": {"x"}, "p/a": {"deep/"}, "q": nil} {
		got, err := f.store.List(t.Context(), f.ref(path))
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("listing %s: %q, %v; want %q", path, got, err, want)
		}
	}
}

func testCheck(t *testing.T, f fixture) {
	for range 2 {
		if err := f.store.Check(t.Context(), f.ref("a"), f.ref("b/c"), f.ref("a")); err != nil {
			t.Fatal(err)
		}
	}
	wantDoc(t, f, "a", nil, 0)
	if names, err := f.store.List(t.Context(), f.ref("b")); err != nil || len(names) > 0 {
		t.Errorf("checking left %q, %v", names, err)
	}
	if err := f.store.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func testCancelled(t *testing.T, f fixture) {
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.store.Read(ctx, f.ref("a"), 0)
	_, err2 := f.store.Write(ctx, f.ref("a"), map[string]any{"n": "2"}, 1)
	_, err3 := f.store.List(ctx, f.ref("a"))
	for i, err := range []error{err, err2, err3, f.store.Check(ctx, f.ref("never checked"))} {
		var e *ledger.Error
		if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
			t.Errorf("call %d: %v, not the context's own error", i, err)
		}
	}
	wantDoc(t, f, "a", map[string]any{"n": "1"}, 1)
}

func testConcurrentWriters(t *testing.T, f fixture) {
	const writers, versions = 6, 5
	for v := range versions {
		var won atomic.Int64
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				_, err := f.store.Write(t.Context(), f.ref("a"), map[string]any{"by": fmt.Sprint(w)}, v)
				switch {
				case err == nil:
					won.Add(1 + int64(w)<<32)
				case !errors.Is(err, ledger.ErrConflict):
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := won.Load() & 0xffffffff; n != 1 {
			t.Fatalf("%d writers won version %d", n, v+1)
		}
		wantDoc(t, f, "a", map[string]any{"by": fmt.Sprint(won.Load() >> 32)}, v+1)
	}
}

func wantDoc(t *testing.T, f fixture, path string, data map[string]any, version int) {
	t.Helper()
	doc, err := f.store.Read(t.Context(), f.ref(path), 0)
	if err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	if doc.Version != version || !reflect.DeepEqual(doc.Fields(), data) {
		t.Fatalf("%s is %.200v in version %d, want %.200v in version %d", path, doc.Fields(), doc.Version, data, version)
	}
}

func wantWrite(t *testing.T, f fixture, path string, data any, cas int) {
	t.Helper()
	version, err := f.store.Write(t.Context(), f.ref(path), data, cas)
	if err != nil || version != cas+1 {
		t.Fatalf("writing %s over version %d: version %d, %v", path, cas, version, err)
	}
}

func wantConflict(t *testing.T, f fixture, path string, cas int) {
	t.Helper()
	if _, err := f.store.Write(t.Context(), f.ref(path), map[string]any{"n": "conflict"}, cas); !errors.Is(err, ledger.ErrConflict) {
		t.Fatalf("writing %s over version %d: %v, want a conflict", path, cas, err)
	}
}

// wanted is what an error should be. advice and says are parts of texts.
type wanted struct {
	reason        ledger.Failure
	outage, maybe bool
	says, advice  string
}

func wantError(t *testing.T, err error, want wanted) {
	t.Helper()
	var e *ledger.Error
	if !errors.As(err, &e) {
		t.Errorf("%v (%T) is not a *rotator.Error", err, err)
		return
	}
	if e.Reason != want.reason || e.Outage != want.outage || e.MaybeApplied != want.maybe || e.Op == "" {
		t.Errorf("%q: op %q, reason %s, outage %t, maybe applied %t; want %s, %t, %t",
			e, e.Op, e.Reason, e.Outage, e.MaybeApplied, want.reason, want.outage, want.maybe)
	}
	if !strings.Contains(e.Error(), want.says) || !strings.Contains(e.Error(), "; ") || !strings.Contains(e.Error(), want.advice) {
		t.Errorf("%q does not say %q and advise %q", e, want.says, want.advice)
	}
	for _, token := range []string{"hvs.", "hvb.", "root-token-of-a-test"} {
		if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e.Err), token) {
			t.Errorf("the error holds a token: %v", e)
		}
	}
}
