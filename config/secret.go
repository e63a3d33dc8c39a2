package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// SecretSource is where a secret comes from: the value of a variable X, or the file that X_FILE names.
// The zero SecretSource is that of a secret which was not given.
type SecretSource struct {
	value elevenlabs.Secret
	path  string
}

// SecretFile returns the source that reads the file at path.
func SecretFile(path string) SecretSource { return SecretSource{path: path} }

// SecretValue returns the source that holds the secret itself.
func SecretValue(value string) SecretSource { return SecretSource{value: elevenlabs.NewSecret(value)} }

// EnvDecode lets go-envconfig set the value.
func (s *SecretSource) EnvDecode(value string) error {
	*s = SecretValue(value)
	return nil
}

// IsSet reports whether the secret was given at all.
func (s SecretSource) IsSet() bool { return s.path != "" || !s.value.IsZero() }

// Path returns the file to watch for changes; "" when there is none.
func (s SecretSource) Path() string { return s.path }

// Get returns the secret; a file is read anew each time, less one final newline. It is an error if the file cannot
// be read or holds nothing. A source that is not set returns the zero Secret.
func (s SecretSource) Get() (elevenlabs.Secret, error) {
	if s.path == "" {
		return s.value, nil
	}
	content, err := os.ReadFile(s.path)
	if err != nil {
		return elevenlabs.Secret{}, fmt.Errorf("reading a secret: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return elevenlabs.Secret{}, fmt.Errorf("reading a secret: %w", &os.PathError{Op: "read", Path: s.path, Err: errEmpty})
	}
	return elevenlabs.NewSecret(text), nil
}

var errEmpty = errors.New("the file is empty")

// flaw says what is wrong with a secret, without showing it. One that is to travel in an HTTP header has a least
// length above 0.
func (s SecretSource) flaw(least int) string {
	secret, err := s.Get()
	switch {
	case err != nil:
		return "cannot be read: " + errors.Unwrap(err).Error() + "; correct the path or what is there"
	case !s.IsSet() || least == 0:
		return ""
	case strings.ContainsFunc(secret.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }):
		return "holds a space, a line break or another character that no token has; give it as it was issued"
	case len(secret.Reveal()) < least:
		return fmt.Sprintf("is shorter than %d characters; make a longer one", least)
	}
	return ""
}
