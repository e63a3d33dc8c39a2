package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Key names are rekeyd.OWNER.POLICY.ROTATION. They tell which policy owns a key and which rotation made it. They are unique, so
// that a create whose answer was lost can be settled by looking for its name, and so that it does not matter whether ElevenLabs
// demands it (assumption A09). They have at most 63 characters (A21).
const (
	namePrefix     = "rekeyd"
	OwnerLength    = 8
	RotationLength = 10
	idAlphabet     = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// KeyName returns the name of the key that a rotation creates.
func KeyName(owner, policy, rotation string) string {
	return strings.Join([]string{namePrefix, owner, policy, rotation}, ".")
}

// ParseKeyName splits a key's name; ok is false for a name that rekeyd does not give.
func ParseKeyName(name string) (owner, policy, rotation string, ok bool) {
	rest, ours := strings.CutPrefix(name, namePrefix+".")
	owner, rest, _ = strings.Cut(rest, ".")
	policy, rotation, _ = strings.Cut(rest, ".")
	if !ours || len(owner) != OwnerLength || policy == "" || len(rotation) != RotationLength || strings.Contains(rotation, ".") {
		return "", "", "", false
	}
	return owner, policy, rotation, true
}

// RandomID returns n random characters of a-z and 0-9.
func RandomID(random io.Reader, n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	for i := range b {
		b[i] = idAlphabet[int(b[i])%len(idAlphabet)]
	}
	return string(b), nil
}

// HashValue returns the salted hash by which a published value is recognised.
func HashValue(salt, value string) string {
	h := sha256.New()
	_, _ = io.WriteString(h, salt)
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, value)
	return hex.EncodeToString(h.Sum(nil))
}

// ValidName reports whether a policy can have this name. A name read from a record must not lead to another path.
func ValidName(name string) bool {
	return name != "" && len(name) <= 36 && strings.Trim(name, idAlphabet+"-") == ""
}

// LooksSecret reports whether a value looks like a secret of ElevenLabs or Vault. Such a value must not be shown.
func LooksSecret(s string) bool {
	return strings.HasPrefix(s, "sk_") || strings.HasPrefix(s, "hvs.") || strings.HasPrefix(s, "hvb.")
}

// ValidKeyID reports whether a key's id can be the name of a document.
func ValidKeyID(id string) bool {
	return id != "" && len(id) <= 128 && strings.Trim(id, idAlphabet+strings.ToUpper(idAlphabet)+"-_") == ""
}
