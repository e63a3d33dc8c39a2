package rotator

import "context"

// CountedFor returns the policy whose calls those under this context count as; "": none's.
func CountedFor(ctx context.Context) string {
	if m, ok := ctx.Value(meterKey{}).(*meter); ok {
		return m.policy
	}
	return ""
}
