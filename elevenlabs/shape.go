package elevenlabs

import (
	"strings"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// LooksSecret reports whether a text that is to be a name, an id or a path looks like a secret, pasted into the wrong
// place.
func LooksSecret(text string) bool {
	const starts = "shgnxAe-" // of the shapes: lists of many addresses cost nothing
	return strings.ContainsAny(text, starts) && secret.ValueShape.MatchString(text)
}
