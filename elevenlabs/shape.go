package elevenlabs

import "github.com/rekeyd/rekeyd/internal/secret"

// LooksSecret reports whether a text meant as a name, an id or a path looks like a secret pasted into the wrong place.
func LooksSecret(text string) bool { return secret.Shaped(text) }
