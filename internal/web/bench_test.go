package web

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rekeyd/rekeyd/internal/localtest"
)

// BenchmarkStatusPage is one page of 10,000 policies, and what it fetches to stay up to date; the aim is 50 ms.
func BenchmarkStatusPage(b *testing.B) {
	w := newWorld(b)
	w.Write(w.PolicyFile, localtest.ManyPolicies(10_000))
	handler := w.build(map[string]string{"REKEYD_LOG_LEVEL": "error"}).handler(true)
	for _, path := range []string{"/", "/page.json?q=policy-9", "/api/v1/policies"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, httptest.NewRequestWithContext(b.Context(), http.MethodGet, path, nil))
				if answer.Code != http.StatusOK {
					b.Fatal(answer.Code)
				}
			}
		})
	}
}
