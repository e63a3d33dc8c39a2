package ledger

import (
	"strings"
	"testing"
)

// TestEveryFailureSaysWhatToDo: each failure has advice of its own, which errors and so logs, commands, status and page end with.
func TestEveryFailureSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, failure := range Failures() {
		advice := advice[failure]
		if (advice == "") != (failure == FailureOther) || strings.HasSuffix(advice, ".") {
			t.Errorf("%s: the advice is %q", failure, advice)
		}
		if err := (&Error{Op: "writing x", Reason: failure}); !strings.HasSuffix(err.Error(), advice) {
			t.Errorf("%q does not say %q", err, advice)
		}
		if err := (&Error{Op: "writing x", Reason: failure, Advice: "unseal it"}); err.Error() != "writing x; unseal it" {
			t.Errorf("it says %q", err)
		}
	}
}
