package rotator

import (
	"testing"
	"unsafe"
)

// TestAPolicyIsSmall: ten thousand of them are in memory. Go rounds such sizes up to 512, then to 576 bytes, of which it needs 8.
func TestAPolicyIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(policyState{}); n > 512 {
		t.Errorf("a policy's state takes %d bytes", n)
	}
}
