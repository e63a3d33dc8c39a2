package secret

import (
	"fmt"
	"io"
	"sync"
	"testing"
)

func TestRemove(t *testing.T) {
	r := new(Redactor)
	first, second := r.Add(New("abcdef")), r.Add(New("abcdef"))
	first()
	first()
	if r.Cut("abcdef") != Placeholder {
		t.Error("forgotten while one still holds it")
	}
	second()
	if r.Cut("abcdef") != "abcdef" {
		t.Error("not forgotten")
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 100 {
				remove := r.Add(New("abcdef"))
				other := r.Add(New(fmt.Sprintf("secret-%d", i)))
				if got := r.Cut("abcdef!"); got != Placeholder+"!" {
					_, _ = io.WriteString(t.Output(), got)
					t.Error("lost under concurrency")
				}
				remove()
				other()
			}
		})
	}
	group.Wait()
	if len(r.held) != 0 {
		t.Errorf("%d still held", len(r.held))
	}
}
