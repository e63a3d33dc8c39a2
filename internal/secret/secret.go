package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Placeholder replaces a secret that is cut out.
const Placeholder = "[secret]"

// Secret holds a credential. No verb of fmt, encoder or logger prints it; only Reveal does.
type Secret struct {
	// A pointer, so that reflection-based printers that ignore our methods (a panic's, a debugger's dump of an
	// enclosing struct) show an address and not the bytes.
	value *string
}

// New wraps a credential.
func New(value string) Secret { return Secret{&value} }

// Reveal returns the credential itself. Review every call.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no credential.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Format writes a placeholder for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Placeholder) }

func (s Secret) String() string { return Placeholder }

// MarshalText serves every encoder that asks for text, JSON and YAML among them.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// LogValue serves log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Placeholder) }
