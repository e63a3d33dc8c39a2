package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/rekeyd/rekeyd/internal/jsonvalues"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

func dataPath(ref ledger.Ref) string { return ref.Mount + "/data/" + ref.Path }

// Read implements ledger.Store.
func (v *Vault) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	op := "reading " + ref.String()
	if err := validRef(op, ref); err != nil {
		return ledger.Doc{}, err
	}
	var query map[string][]string
	if version != 0 {
		query = map[string][]string{"version": {strconv.Itoa(version)}}
	}
	a := v.getSince(ctx, ledger.SessionOf(ctx).Index(), dataPath(ref), query)
	switch {
	case a.fault == nil && a.status == http.StatusForbidden:
		return ledger.Doc{}, v.denied(ctx, op, a, dataPath(ref), "read")
	case a.fault == nil && (a.ok() || a.status == http.StatusNotFound):
		return v.parseDoc(ctx, op, ref, a)
	default:
		return ledger.Doc{}, v.failure(ctx, op, a, false)
	}
}

// parseDoc reads a version, or the reason of a 404. A deleted or destroyed version comes with its metadata; a document
// that was never written comes without, and so does a mount of another type.
func (v *Vault) parseDoc(ctx context.Context, op string, ref ledger.Ref, a answer) (ledger.Doc, error) {
	var metadata struct {
		Version int `json:"version"`
	}
	member := jsonvalues.Members(a.data, "data", "metadata")
	_ = json.Unmarshal(member[1], &metadata) // what it is not has no version
	switch {
	case metadata.Version == 0:
		if err := v.checkMount(ctx, op, ref.Mount); err != nil || a.status == http.StatusNotFound {
			return ledger.Doc{}, err
		}
		return ledger.Doc{}, v.failure(ctx, op, a, false)
	case a.status == http.StatusNotFound:
		return ledger.Doc{Version: metadata.Version}, nil
	case !bytes.HasPrefix(member[0], []byte("{")):
		return ledger.Doc{}, &ledger.Error{Op: op, Reason: ledger.FailureSinkError,
			Err: fmt.Errorf("version %d is not a JSON object", metadata.Version), Advice: "delete that version or write a JSON object"}
	}
	return ledger.Doc{Version: metadata.Version, JSON: member[0]}, nil
}

// casMismatch is the KV engine's message for a conflict; its status, 400, has other meanings too.
const casMismatch = "check-and-set parameter did not match the current version"

// Write implements ledger.Store.
func (v *Vault) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	op := "writing " + ref.String()
	if err := validRef(op, ref); err != nil {
		return 0, err
	}
	if data == nil {
		data = struct{}{} // null would be stored as a value that is not an object
	}
	// A mount of version 1 accepts the same request, overwrites without check-and-set, and answers with success.
	if err := v.checkMount(ctx, op, ref.Mount); err != nil {
		return 0, err
	}
	a := v.putDoc(ctx, dataPath(ref), data, cas)
	if a.fault != nil {
		return 0, v.failure(ctx, op, a, true)
	}
	switch a.status {
	case http.StatusOK:
		ledger.SessionOf(ctx).Wrote(a.index)
		var body struct {
			Version int `json:"version"`
		}
		if err := decode(a.data, &body); err == nil && body.Version != 0 {
			return body.Version, nil
		}
	case http.StatusBadRequest:
		if a.says(casMismatch) {
			return 0, ledger.ErrConflict
		}
	case http.StatusForbidden:
		return 0, v.denied(ctx, op, a, dataPath(ref), "create", "update")
	case http.StatusNotFound, http.StatusNoContent:
		v.forget() // the mount has changed
	}
	return 0, v.failure(ctx, op, a, true)
}

// putDoc sends a document. Data that encodes itself does so once: encoding/json would scan and copy it for the body around it.
func (v *Vault) putDoc(ctx context.Context, path string, data any, cas int) answer {
	encode := func() ([]byte, error) { return json.Marshal(data) }
	if m, ok := data.(json.Marshaler); ok {
		encode = m.MarshalJSON
	}
	text, err := encode()
	if err != nil {
		return answer{fault: unsent{fmt.Errorf("encoding the request: %w", err)}}
	}
	return v.put(ctx, opWrite, path, slices.Concat([]byte(`{"options":{"cas":`+strconv.Itoa(cas)+`},"data":`), text, []byte("}")))
}

// List implements ledger.Store.
func (v *Vault) List(ctx context.Context, ref ledger.Ref) ([]string, error) {
	op := "listing " + ref.String()
	if err := validRef(op, ref); err != nil {
		return nil, err
	}
	path := ref.Mount + "/metadata/" + ref.Path
	a := v.get(ctx, opList, path, map[string][]string{"list": {"true"}})
	switch {
	case a.fault == nil && a.status == http.StatusNotFound:
		return nil, v.checkMount(ctx, op, ref.Mount)
	case a.fault == nil && a.status == http.StatusForbidden:
		return nil, v.denied(ctx, op, a, path+"/", "list")
	}
	var body struct {
		Keys []string `json:"keys"`
	}
	if !a.ok() || decode(a.data, &body) != nil {
		return nil, v.failure(ctx, op, a, false)
	}
	return body.Keys, v.checkMount(ctx, op, ref.Mount)
}
