package memkv_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// A standby shows a write once its lag is over, and never goes back; a read in a session waits for the session's write where the
// server returns an index, and asks for nothing where it does not.
func TestStandbysLag(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := memkv.New("root", "secret")
			node := 0
			var refused []int
			s.Standbys(indexed, func(*http.Request) int { return node }, 3*time.Second)
			s.After(func(_ *http.Request, resp *http.Response) error {
				if resp.StatusCode >= 400 && resp.StatusCode != http.StatusNotFound {
					refused = append(refused, resp.StatusCode)
				}
				return nil
			})
			v := open(t, s)
			ctx := ledger.WithSession(t.Context())
			version := func(node1 int) int {
				t.Helper()
				node = node1
				doc, err := v.Read(ctx, ref, 0)
				if err != nil {
					t.Fatal(err)
				}
				return doc.Version
			}
			node = 1 // writes go to the active node all the same
			if _, err := v.Write(ctx, ref, map[string]any{"n": "1"}, 0); err != nil {
				t.Fatal(err)
			}
			begun, want := time.Now(), 0
			if indexed {
				want = 1
			}
			if n := version(1); n != want || version(0) != 1 {
				t.Errorf("indexed %t: right after the write the standby shows version %d", indexed, n)
			}
			if time.Since(begun) != 0 || len(refused) != 0 {
				t.Errorf("indexed %t: it took %s, %v", indexed, time.Since(begun), refused) // it was forwarded
			}
			<-time.After(3 * time.Second)
			if n := version(1); n != 1 {
				t.Errorf("indexed %t: at last the standby shows version %d", indexed, n)
			}
			s.Lag(1, time.Hour)
			if n := version(1); n != 1 {
				t.Errorf("indexed %t: the standby went back to version %d", indexed, n)
			}
			n, err := v.Node(t.Context())
			if err != nil || !n.Reads || !n.Standby || n.Indexed != indexed || !v.Lags(t.Context()) {
				t.Errorf("indexed %t: it says of itself %+v, %v", indexed, n, err)
			}
		})
	}
}
