package web

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// BenchmarkPages is each page of 10,000 policies; the aim is 50 ms for what is fetched again and again.
func BenchmarkPages(b *testing.B) {
	now := time.Now()
	snapshot := fleet(b, 10_000, now)
	handler := servedOf(b, snapshot).handler(true)
	for _, path := range []string{"/", "/?q=studio&sort=-age&group=label:team", "/policies/" + snapshot.Policies[0].Policy.Name, "/calendar", "/api/v1/policies"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				answer, request := httptest.NewRecorder(), httptest.NewRequestWithContext(b.Context(), http.MethodGet, path, nil)
				request.Header.Set("Accept-Encoding", "gzip")
				handler.ServeHTTP(answer, request)
				if answer.Code != http.StatusOK {
					b.Fatal(answer.Code)
				}
				size = answer.Body.Len()
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
