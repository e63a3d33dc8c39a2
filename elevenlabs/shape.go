package elevenlabs

import (
	"strings"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// LooksSecret reports whether a text meant as a name, an id or a path looks like a secret pasted into the wrong place.
func LooksSecret(text string) bool {
	const starts = "shgnxAe-" // first characters of the shapes: a cheap test for long lists
	return strings.ContainsAny(text, starts) && secret.ValueShape.MatchString(text)
}
