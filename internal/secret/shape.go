package secret

import "regexp"

// shapes are those of secrets that people paste into the wrong place: keys of ElevenLabs, tokens of Vault, and what
// else names its kind at its start. The first are known by little, the others only at full length.
const shapes = `(?:sk_|hv[bsr]\.)[\w-]{6,}` +
	`|gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|npm_\w{30,}|sk-[\w-]{32,}` +
	`|AKIA[0-9A-Z]{16}\b|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)?|s\.[A-Za-z0-9]{24}\b`

var (
	secretShape = regexp.MustCompile(`\b(?:` + shapes + `)`)
	// ValueShape is the shape of a whole value. In the midst of a path, "sk_admin" is a name that a person may have chosen.
	ValueShape = regexp.MustCompile(`^(?:` + shapes + `)|\b(?:sk_|hv[bsr]\.)[\w-]{16,}|-----BEGIN `)
)

// HideShapes replaces by "[secret]" what looks like a secret in a text, whether or not the process holds it.
func HideShapes(text string) string { return secretShape.ReplaceAllString(text, Placeholder) }
