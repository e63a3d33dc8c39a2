package plan

import "time"

// MaxBackoff is the longest wait between two tries.
const MaxBackoff = time.Hour
