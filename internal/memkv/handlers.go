package memkv

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// handleKV serves what lies below a mount.
func (s *Server) handleKV(q request, m *mount, name, rest string) (answer, error) {
	kind, path, _ := strings.Cut(rest, "/")
	if kind != "metadata" && strings.HasSuffix(path, "/") || kind != "config" && kind != "metadata" && path == "" {
		return answer{}, unspoken(q)
	}
	switch kind + " " + q.method {
	case "data GET":
		return m.serveRead(path, q)
	case "data PUT":
		return s.serveWrite(m, name, path, q)
	case "data DELETE":
		m.softDelete(path)
		return answer{status: http.StatusNoContent}, nil
	case "delete PUT":
		return serveVersions(q, "No version number provided", func(n []int) { m.deleteVersions(path, n) })
	case "undelete PUT":
		return serveVersions(q, "No version number provided", func(n []int) { m.undelete(path, n) })
	case "destroy PUT":
		return serveVersions(q, "no version number provided", func(n []int) { m.destroy(path, n) })
	case "metadata GET":
		return m.serveMetadata(path)
	case "metadata DELETE":
		delete(m.docs, path)
		return answer{status: http.StatusNoContent}, nil
	case "metadata LIST":
		return m.serveList(path)
	case "config GET":
		return answer{status: http.StatusOK, kind: "kv", data: map[string]any{
			"cas_required": m.casRequired, "max_versions": m.maxVersions, "delete_version_after": "0s"}}, nil
	case "config PUT":
		return m.serveConfig(q)
	}
	return answer{}, unspoken(q)
}

func (m *mount) serveRead(path string, q request) (answer, error) {
	number := 0
	if q.version != "" {
		var err error
		if number, err = strconv.Atoi(q.version); err != nil {
			return answer{}, unspoken(q)
		}
	}
	d := m.docs[path]
	if d == nil {
		return answer{}, refuse(http.StatusNotFound)
	}
	if number <= 0 {
		number = d.current
	}
	v := d.versions[number]
	if v == nil {
		return answer{}, refuse(http.StatusNotFound)
	}
	data := map[string]any{"data": nil, "metadata": v.facts(number)}
	if !v.readable() {
		return answer{status: http.StatusNotFound, data: data}, nil
	}
	data["data"] = decode(v.data)
	return answer{status: http.StatusOK, kind: "kv", data: data}, nil
}

// facts is the metadata of a version.
func (v *version) facts(number int) map[string]any {
	return map[string]any{"version": number, "created_time": stamp(v.created), "deletion_time": stamp(v.deleted),
		"destroyed": v.destroyed, "custom_metadata": nil}
}

func (s *Server) serveWrite(m *mount, name, path string, q request) (answer, error) {
	var body struct {
		Options map[string]json.RawMessage `json:"options"`
		Data    json.RawMessage            `json:"data"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil {
		return answer{}, unspoken(q)
	}
	switch first := append(body.Data, 0)[0]; first {
	case 0:
		return answer{}, refuse(http.StatusBadRequest, "no data provided")
	case '{', 'n': // an object, or null
	case '[', 't', 'f': // Vault makes what it can of these
		return answer{}, unspoken(q)
	default:
		return answer{}, refuse(http.StatusBadRequest, `error converting input for field "data": '' expected a map, got 'string'`)
	}
	if err := m.checkCAS(path, body.Options); err != nil {
		return answer{}, err
	}
	d := m.write(path, body.Data)
	if s.OnWrite != nil {
		s.OnWrite(name+"/"+path, d.current, decode(body.Data))
	}
	return answer{status: http.StatusOK, kind: "kv", data: d.versions[d.current].facts(d.current)}, nil
}

func (m *mount) checkCAS(path string, options map[string]json.RawMessage) error {
	raw, given := options["cas"]
	if !given {
		if m.casRequired {
			return refuse(http.StatusBadRequest, "check-and-set parameter required for this call")
		}
		return nil
	}
	current := 0
	if d := m.docs[path]; d != nil {
		current = d.current
	}
	cas, ok := weakInt(raw)
	if !ok {
		return refuse(http.StatusBadRequest, "error parsing check-and-set parameter")
	}
	if cas != current {
		return refuse(http.StatusBadRequest, "check-and-set parameter did not match the current version")
	}
	return nil
}

// weakInt reads an integer as Vault does, which takes null for 0, and strings that hold one.
func weakInt(raw json.RawMessage) (int, bool) {
	text := strings.Trim(string(raw), `"`)
	switch text {
	case "null", "false", "":
		return 0, true
	case "true":
		return 1, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

func serveVersions(q request, none string, apply func([]int)) (answer, error) {
	var body struct {
		Versions []int `json:"versions"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil {
		return answer{}, unspoken(q)
	}
	if len(body.Versions) == 0 {
		return answer{}, refuse(http.StatusBadRequest, none)
	}
	apply(body.Versions)
	return answer{status: http.StatusNoContent}, nil
}

func (m *mount) serveMetadata(path string) (answer, error) {
	d := m.docs[path]
	if d == nil {
		return answer{}, refuse(http.StatusNotFound)
	}
	versions := map[string]any{}
	for n, v := range d.versions {
		versions[strconv.Itoa(n)] = map[string]any{"created_time": stamp(v.created), "deletion_time": stamp(v.deleted),
			"destroyed": v.destroyed, "created_by": actor(v.createdBy), "deleted_by": actor(v.deletedBy)}
	}
	return answer{status: http.StatusOK, kind: "kv", data: map[string]any{
		"cas_required": false, "created_time": stamp(d.created), "current_version": d.current, "custom_metadata": nil,
		"delete_version_after": "0s", "last_updated_by": actor(d.updatedBy), "max_versions": 0,
		"oldest_version": d.oldest, "updated_time": stamp(d.updated), "versions": versions,
	}}, nil
}

func actor(operation string) any {
	if operation == "" {
		return nil
	}
	return map[string]any{"actor": "token", "operation": operation, "client_id": "memkv"}
}

func (m *mount) serveList(path string) (answer, error) {
	if path != "" && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	names := m.list(path)
	if len(names) == 0 {
		return answer{}, refuse(http.StatusNotFound)
	}
	return answer{status: http.StatusOK, kind: "kv", data: map[string]any{"keys": names}}, nil
}

// serveConfig accepts only the settings whose effects are modelled.
func (m *mount) serveConfig(q request) (answer, error) {
	var body struct {
		MaxVersions *int  `json:"max_versions"`
		CASRequired *bool `json:"cas_required"`
	}
	d := json.NewDecoder(bytes.NewReader(q.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return answer{}, unspoken(q)
	}
	if body.MaxVersions != nil {
		m.maxVersions = *body.MaxVersions
	}
	if body.CASRequired != nil {
		m.casRequired = *body.CASRequired
	}
	return answer{status: http.StatusNoContent}, nil
}
