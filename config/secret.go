package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/smallfile"
)

// SecretSource is the source of a secret: the value of a variable X, or the file that X_FILE names.
// The zero SecretSource is not set.
type SecretSource struct {
	value secret.Secret
	path  string
}

// SecretFile returns the source that reads the file at path.
func SecretFile(path string) SecretSource { return SecretSource{path: path} }

// SecretValue returns the source that holds the secret itself.
func SecretValue(value string) SecretSource { return SecretSource{value: secret.New(value)} }

// EnvDecode lets go-envconfig set the value.
func (s *SecretSource) EnvDecode(value string) error {
	*s = SecretValue(value)
	return nil
}

// IsSet reports whether the secret was given.
func (s SecretSource) IsSet() bool { return s.path != "" || !s.value.IsZero() }

// Path returns the file to watch for changes; "" when there is none.
func (s SecretSource) Path() string { return s.path }

// Get returns the secret; a file is read anew each time, less one final newline. It is an error if the file is
// empty or not a regular one of at most [smallfile.Secret] bytes. A source that is not set returns the zero Secret.
func (s SecretSource) Get(ctx context.Context) (secret.Secret, error) {
	if s.path == "" {
		return s.value, nil
	}
	content, err := smallfile.Read(ctx, s.path, smallfile.Secret)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("taking a secret: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return secret.Secret{}, fmt.Errorf("taking a secret: %w", &fs.PathError{Op: "reading", Path: s.path, Err: errEmpty})
	}
	return secret.New(text), nil
}

var errEmpty = errors.New("the file is empty")

// flaw describes what is wrong with a secret, without showing it. A secret sent in an HTTP header has a least length
// above 0.
func (s SecretSource) flaw(ctx context.Context, least int) string {
	if elevenlabs.LooksSecret(s.path) {
		return "looks like the secret itself, not a path; write it into a file and give that file's path"
	}
	secret, err := s.Get(ctx)
	switch {
	case err != nil:
		return "cannot be read: " + cut(s.path, 200) + ": " + reason(err).Error() + "; correct the path or what is there"
	case !s.IsSet() || least == 0:
		return ""
	case strings.ContainsFunc(secret.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }):
		return "holds a space, a line break or another character that no token has; give it as it was issued"
	case len(secret.Reveal()) < least:
		return fmt.Sprintf("is shorter than %d characters; make a longer one", least)
	}
	return ""
}
