package plan

import "time"

// MaxBackoff is the longest wait between two tries of what fails.
const MaxBackoff = time.Hour
