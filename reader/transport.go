package reader

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

type transport struct {
	reader *Reader
	origin string
	base   http.RoundTripper
}

// Transport returns a RoundTripper that sends the key in the header xi-api-key to origin, such as https://api.elevenlabs.io, by
// base; nil is http.DefaultTransport. Requests to another origin fail, so that no redirect or mistaken URL carries the key away.
//
// After a 401 with the code invalid_api_key it calls [Reader.Reread] and, if there is another key, sends the request once more. A
// refused request was not carried out, so its method does not matter, but its body must be repeatable: http.NewRequest sees to that
// for bytes and strings, others set GetBody. Otherwise the 401 is returned, and the next request has the new key.
func (r *Reader) Transport(origin string, base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport //nolint:forbidigo // that is what nil means in net/http
	}
	return &transport{r, strings.TrimSuffix(origin, "/"), base}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	key, err := t.reader.Key(req.Context())
	if to := req.URL.Scheme + "://" + req.URL.Host; !strings.EqualFold(to, t.origin) {
		err = fmt.Errorf("%s is not %s, which the key is for", to, t.origin)
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("adding the API key: %w", err)
	}
	resp, err := t.send(req, req.Body, key)
	if err != nil || !refused(resp) {
		return resp, err
	}
	next, err := t.reader.Reread(req.Context(), key)
	if err != nil || next.same(key) || req.Body != nil && req.GetBody == nil {
		return resp, nil
	}
	body := req.Body
	if body != nil {
		if body, err = req.GetBody(); err != nil {
			return resp, nil
		}
	}
	_ = resp.Body.Close()
	return t.send(req, body, next)
}

func (t *transport) send(req *http.Request, body io.ReadCloser, key Key) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Body = body
	out.Header.Set("xi-api-key", key.Reveal())
	return t.base.RoundTrip(out)
}

// refused reports whether an answer says that the key does not work. The body can be read as before.
func refused(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized {
		return false
	}
	head, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the caller meets the same error
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	var said struct {
		Detail struct{ Code, Status string } // status is the older name
	}
	_ = json.Unmarshal(head, &said)
	return said.Detail.Code == "invalid_api_key" || said.Detail.Status == "invalid_api_key"
}
