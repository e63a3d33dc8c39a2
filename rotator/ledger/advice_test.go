package ledger

import (
	"strings"
	"testing"
)

// TestEveryFailureSaysWhatToDo: each reason has advice of its own, which errors and so logs, commands, status and page end with.
func TestEveryFailureSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, reason := range FailureReasons() {
		advice := advice[reason]
		if (advice == "") != (reason == ReasonOther) || strings.HasSuffix(advice, ".") {
			t.Errorf("%s: the advice is %q", reason, advice)
		}
		if err := (&Error{Op: "writing x", Reason: reason}); !strings.HasSuffix(err.Error(), advice) {
			t.Errorf("%q does not say %q", err, advice)
		}
		if err := (&Error{Op: "writing x", Reason: reason, Advice: "unseal it"}); err.Error() != "writing x; unseal it" {
			t.Errorf("it says %q", err)
		}
	}
}
