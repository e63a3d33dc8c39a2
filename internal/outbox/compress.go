package outbox

import (
	"compress/gzip"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Compressed sends what next answers with gzip, where the client accepts that. It is for answers that are made whole and hold no
// secret, whose length could give it away.
func Compressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		if !acceptsGzip(r.Header) {
			next.ServeHTTP(w, r)
			return
		}
		z := &gzipWriter{ResponseWriter: w}
		next.ServeHTTP(z, r)
		if z.gzip != nil {
			_ = z.gzip.Close() // fails when the client is gone
		}
	})
}

// acceptsGzip reports whether a client names gzip, or all encodings, and does not refuse it.
func acceptsGzip(h http.Header) bool {
	for encoding := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, parameters, err := mime.ParseMediaType(encoding)
		if err != nil || name != "gzip" && name != "*" {
			continue
		}
		weight, err := strconv.ParseFloat(parameters["q"], 64)
		return err != nil || weight > 0
	}
	return false
}

// gzipWriter compresses a body. A refusal, which is a line, it leaves as it is.
type gzipWriter struct {
	http.ResponseWriter
	gzip    *gzip.Writer
	refused bool
}

// WriteHeader implements http.ResponseWriter.
func (z *gzipWriter) WriteHeader(status int) {
	z.refused = true // an answer with a body is written at once
	z.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (z *gzipWriter) Write(p []byte) (int, error) {
	if z.refused {
		return z.ResponseWriter.Write(p)
	}
	if z.gzip == nil {
		z.Header().Set("Content-Encoding", "gzip")
		z.gzip, _ = gzip.NewWriterLevel(z.ResponseWriter, gzip.BestSpeed) // a level that exists
	}
	return z.gzip.Write(p)
}
