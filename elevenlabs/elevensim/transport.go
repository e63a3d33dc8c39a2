package elevensim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Transport serves requests by calling the server, without sockets or goroutines. A request fails as it would over a
// connection: with the context's error when that ends first, with io.EOF when the connection is cut, with
// io.ErrUnexpectedEOF in mid-body when the answer is truncated.
func Transport(s *Server) http.RoundTripper { return transport{s} }

type transport struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper]. The server sees it as coming from 127.0.0.1.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }() // required of a RoundTripper
	}
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := req.Clone(ctx)
	r.RequestURI, r.RemoteAddr = req.URL.RequestURI(), "127.0.0.1:1"
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := &recorder{header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}}
	aborted := serve(t.handler, w, r)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.status == 0 {
		return nil, io.EOF
	}
	body := io.Reader(&w.body)
	if aborted {
		body = io.MultiReader(body, failing{io.ErrUnexpectedEOF})
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(body), ContentLength: -1, Request: req,
	}, nil
}

// serve reports whether the handler cut the connection, as net/http does.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		switch v := recover(); {
		case v == nil:
		case isAbort(v):
			aborted = true
		default:
			panic(v)
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

func isAbort(v any) bool {
	err, ok := v.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) { w.status = status }

func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
