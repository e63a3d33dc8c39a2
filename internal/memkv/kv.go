package memkv

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// defaultVersions is how many versions a document keeps if neither it nor its mount sets a number.
const defaultVersions = 10

// mount is one KV engine.
type mount struct {
	docs        map[string]*document
	maxVersions int
	casRequired bool
}

type document struct {
	current, oldest  int
	created, updated time.Time
	updatedBy        string // the operation that wrote the metadata last
	versions         map[int]*version
}

type version struct {
	data      json.RawMessage
	created   time.Time
	deleted   time.Time // zero: not
	destroyed bool
	createdBy string
	deletedBy string
}

func (v *version) readable() bool { return v.deleted.IsZero() && !v.destroyed }

// write makes the next version.
func (m *mount) write(path string, data json.RawMessage) *document {
	now := time.Now()
	d, by := m.docs[path], "update"
	if d == nil {
		d, by = &document{created: now, versions: map[int]*version{}}, "create"
		m.docs[path] = d
	}
	d.current++
	d.updated, d.updatedBy = now, by
	d.versions[d.current] = &version{data: data, created: now, createdBy: by}
	m.prune(d)
	return d
}

// prune moves the window of the versions that are kept. The oldest is noted only once one has left it.
func (m *mount) prune(d *document) {
	keep := m.maxVersions
	if keep == 0 {
		keep = defaultVersions
	}
	if d.current-d.oldest < keep {
		return
	}
	last := d.current - keep
	for n := d.oldest; n <= last; n++ {
		delete(d.versions, n)
	}
	d.oldest = last + 1
}

// softDelete deletes the newest version if there is anything to delete.
func (m *mount) softDelete(path string) {
	d := m.docs[path]
	if d == nil {
		return
	}
	if v := d.versions[d.current]; v != nil && v.readable() {
		v.deleted, v.deletedBy, d.updatedBy = time.Now(), "delete", "delete"
	}
}

// deleteVersions, undelete and destroy skip versions that do not exist.
func (m *mount) deleteVersions(path string, numbers []int) {
	m.each(path, "update", numbers, func(v *version) {
		if v.readable() {
			v.deleted, v.deletedBy = time.Now(), "update"
		}
	})
}

func (m *mount) undelete(path string, numbers []int) {
	m.each(path, "undelete", numbers, func(v *version) {
		if !v.destroyed {
			v.deleted, v.deletedBy = time.Time{}, ""
		}
	})
}

func (m *mount) destroy(path string, numbers []int) {
	m.each(path, "", numbers, func(v *version) { v.destroyed, v.data = true, nil })
}

func (m *mount) each(path, by string, numbers []int, change func(*version)) {
	d := m.docs[path]
	if d == nil {
		return
	}
	for _, n := range numbers {
		if v := d.versions[n]; v != nil {
			change(v)
		}
	}
	if by != "" {
		d.updatedBy = by
	}
}

// list returns the names directly below a path that is empty or ends in a slash.
func (m *mount) list(below string) []string {
	var names []string
	for p := range m.docs {
		rest, ok := strings.CutPrefix(p, below)
		if !ok {
			continue
		}
		name, _, folder := strings.Cut(rest, "/")
		if folder {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// decode gives numbers as Vault does, which keeps them as floating point. It is nil for null.
func decode(text json.RawMessage) map[string]any {
	var data map[string]any
	_ = json.Unmarshal(text, &data) // an object or null, as write took it
	return data
}
