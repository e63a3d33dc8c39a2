package daemon

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkReload is one reload of a file in which one policy was edited, from the file to the rotator. The budget is
// 1.5 s for 10,000 policies, and at most twelve times what 1,000 take.
func BenchmarkReload(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			file := manyPolicies(n)
			w.write(w.policyFile, file)
			d := w.build(map[string]string{"REKEYD_LOG_LEVEL": "error"}, nil)
			for i := 0; b.Loop(); i++ {
				w.write(w.policyFile, strings.Replace(file, "max_age: 30h", fmt.Sprintf("max_age: %dh", 30+i%9), 1))
				if loaded, err := d.reload(b.Context(), true); err != nil || loaded != n {
					b.Fatalf("%d policies: %v", loaded, err)
				}
			}
		})
	}
}

func manyPolicies(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("policy-%d", i)
	}
	return policies(names...)
}
