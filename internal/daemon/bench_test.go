package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/localtest"
)

// BenchmarkReload is one reload of a file in which one policy was edited, from the file to the rotator. The budget is
// 1.5 s for 10,000 policies, and at most twelve times what 1,000 take.
func BenchmarkReload(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			file := localtest.ManyPolicies(n)
			w.Write(w.PolicyFile, file)
			d := w.build(map[string]string{"REKEYD_LOG_LEVEL": "error"}, nil)
			for i := 0; b.Loop(); i++ {
				w.Write(w.PolicyFile, strings.Replace(file, "max_age: 30h", fmt.Sprintf("max_age: %dh", 30+i%9), 1))
				if loaded, err := d.reload(b.Context(), true); err != nil || loaded != n {
					b.Fatalf("%d policies: %v", loaded, err)
				}
			}
		})
	}
}
