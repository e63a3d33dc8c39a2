package secret

import (
	"regexp"
	"slices"
	"strings"
)

// shapes are those of secrets that people paste into the wrong place: ElevenLabs keys, Vault tokens, and others with a
// telling prefix. The first match on a short prefix, the others only at full length.
const shapes = `(?:sk_|hv[bsr]\.)[\w-]{6,}` +
	`|gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|npm_\w{30,}|sk-[\w-]{32,}` +
	`|AKIA[0-9A-Z]{16}\b|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)?|s\.[A-Za-z0-9]{24}\b`

var (
	secretShape = regexp.MustCompile(`\b(?:` + shapes + `)`)
	// valueShape is the shape of a whole value. Within a path, "sk_admin" may be an ordinary name.
	valueShape = regexp.MustCompile(`^(?:` + shapes + `)|\b(?:sk_|hv[bsr]\.)[\w-]{16,}|-----BEGIN `)
)

// Shaped reports whether a value looks like a secret. Each shape has one of the marks and most texts of a policy file have none, of which
// the shapes would take ten times as long to tell.
func Shaped(value string) bool {
	marks := []string{"sk_", "hv", "gh", "github_pat_", "glpat-", "xox", "npm_", "sk-", "AKIA", "AIza", "eyJ", "s.", "-----BEGIN "}
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(value, mark) }) && valueShape.MatchString(value)
}

// HideShapes replaces text that looks like a secret with "[secret]", whether or not the process holds it.
func HideShapes(text string) string { return secretShape.ReplaceAllString(text, Placeholder) }
