package rotator_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// memory is a store that behaves as that in files does, and costs next to nothing: only the newest version is kept.
type memory struct {
	mu   sync.Mutex
	docs map[ledger.Ref]ledger.Doc // without JSON: removed
}

func newMemory() *memory { return &memory{docs: map[ledger.Ref]ledger.Doc{}} }

func (m *memory) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Doc{}, err
	}
	doc := m.peek(ref)
	if version != 0 && version != doc.Version {
		return ledger.Doc{}, nil
	}
	return doc, nil
}

// peek reads without a context, as a look at a file does.
func (m *memory) peek(ref ledger.Ref) ledger.Doc {
	m.mu.Lock()
	defer m.mu.Unlock()
	doc := m.docs[ref]
	doc.JSON = slices.Clone(doc.JSON)
	return doc
}

func (m *memory) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	text, err := json.Marshal(data)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.docs[ref].Version != cas {
		return 0, ledger.ErrConflict
	}
	m.docs[ref] = ledger.Doc{JSON: text, Version: cas + 1}
	return cas + 1, nil
}

// remove is what a person does who deletes the file.
func (m *memory) remove(ref ledger.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.docs[ref] = ledger.Doc{Version: m.docs[ref].Version + 1}
}

func (m *memory) List(_ context.Context, ref ledger.Ref) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for other, doc := range m.docs {
		below, ok := strings.CutPrefix(other.Path, ref.Path+"/")
		if !ok || other.Mount != ref.Mount || doc.JSON == nil {
			continue
		}
		name, _, folder := strings.Cut(below, "/")
		if folder {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (m *memory) Lags(context.Context) bool { return false }

func (m *memory) Check(context.Context, ...ledger.Ref) error { return nil }
