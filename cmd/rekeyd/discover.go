package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

var workspaceName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`) // as in a policy file

// discover is `rekeyd discover`: a policy file for a workspace as it is. It changes nothing.
func (a app) discover(ctx context.Context, o options, _ []string) error {
	v, _ := built()
	under := ledger.Ref{Mount: strings.Trim(o.mount, "/"), Path: strings.Trim(o.prefix, "/")}
	if under.Mount == "" || under.Path == "" {
		return usageError{errors.New("rekeyd discover: --mount and --prefix name where the records are, such as secret and elevenlabs")}
	}
	if !workspaceName.MatchString(o.workspace) || elevenlabs.LooksSecret(o.workspace) {
		return usageError{errors.New("rekeyd discover: --workspace is not a workspace's name; write 1 to 64 of a-z A-Z 0-9 . _ -")}
	}
	d, err := daemon.Discover(a.surveying(ctx, o.format), a.lookuper, o.workspace, v, under, a.unwrapped)
	if err != nil {
		return err
	}
	for _, lack := range d.Lacks {
		a.printError("warning", errors.New(lack))
	}
	text, proposed := propose(ctx, d, under)
	if err := a.print("%s", safe(text)); err != nil {
		return err
	}
	if proposed > 0 {
		return nil
	}
	none := fmt.Sprintf("discovering workspace %s: none of its %s has an enabled key that a policy could take over, so there is no policy in the file", d.Workspace, count(len(d.Accounts), "service account", "service accounts"))
	if !slices.ContainsFunc(d.Accounts, d.Keyless) {
		return errors.New(none)
	}
	a.printError("warning", errors.New(none+" yet; take the # from one that a comment proposes"))
	return nil
}

// proposal is a policy file in the making.
type proposal struct {
	*daemon.Discovery
	under ledger.Ref

	names    map[string]bool     // of policies, taken
	sinks    map[ledger.Ref]bool // taken
	proposed int
	adopted  int
	careful  bool // each policy is checked by itself
}

// propose writes the policy file, and says how many policies it has. Where a policy is not valid, it is written again, with
// each checked by itself, which takes its time.
func propose(ctx context.Context, d *daemon.Discovery, under ledger.Ref) (text string, policies int) {
	for _, careful := range []bool{false, true} {
		p := proposal{Discovery: d, under: under, names: map[string]bool{}, sinks: map[ledger.Ref]bool{}, careful: careful}
		for _, name := range d.Policies {
			p.names[name] = true
		}
		text, policies = p.file(ctx), p.proposed
		if _, err := config.CheckPolicies(ctx, config.Source{Text: strings.Replace(text, p.head(p.BaseURL), p.head(vendorURL), 1)}); err == nil {
			break
		}
	}
	return text, policies
}

// file is the policy file.
func (p *proposal) file(ctx context.Context) string {
	var policies strings.Builder
	for _, account := range p.Accounts {
		keys := p.Proposable(account)
		fmt.Fprintf(&policies, "\n  # Service account %s, %s: %s.\n", remark(account.ID), remark(account.Name), p.tally(account, keys))
		for _, k := range keys {
			policies.WriteString(p.policy(ctx, account, k))
		}
		if p.Keyless(account) {
			policies.WriteString(p.firstKey(account))
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, `# Workspace %s as it is: %s in %s, of which %s in a record.
# Nothing was changed. Read it, decide what is marked, and try it with rekeyd check FILE and rekeyd plan.
#
# A policy with adopt takes over its key: readers notice nothing. One with mode: paused does nothing: its secret is in no record.
# Put it there and set adopt as its comment says, or remove mode: paused, and rekeyd makes a new key beside the old one.
`, remark(p.Workspace), count(p.proposed, "enabled key", "enabled keys"), count(len(p.Accounts), "service account", "service accounts"), count(p.adopted, "was found", "were found"))
	for _, lack := range p.Lacks {
		fmt.Fprintf(&out, "# Not known: %s\n", remark(lack))
	}
	out.WriteString("\n" + p.head(p.BaseURL) + "\npolicies:" + policies.String())
	return out.String()
}

const vendorURL = "https://api.elevenlabs.io"

// head is all but the policies. Which base URLs are allowed is a matter of the environment, which decides on no policy.
func (p *proposal) head(baseURL string) string {
	text := ""
	if p.Workspace != "default" {
		text = "workspaces:\n  - name: " + scalar(p.Workspace) + "\n    base_url: " + scalar(baseURL) + "\n    api_key: {env: ELEVENLABS_API_KEY} # decide: where its admin key is kept\n\n"
	}
	text += `defaults:
  schedule: "0 3 * * 1" # decide: when keys rotate
  splay: 6h             # so that they do not all rotate at once
  mode: manual          # decide: auto, once rekeyd status shows the adopted keys
`
	if p.Workspace != "default" {
		text += "  workspace: " + scalar(p.Workspace) + "\n"
	}
	return text
}

// tally says what an account has.
func (p *proposal) tally(a elevenlabs.ServiceAccount, keys []elevenlabs.Key) string {
	text := count(len(keys), "key", "keys") + " to take over"
	disabled := 0
	var ours, others []string
	for _, k := range a.Keys {
		switch known := p.Keys[k.ID]; {
		case known.Policy != "":
			ours = append(ours, remark(k.ID)+" (policy "+remark(known.Policy)+")")
		case known.Others != "":
			others = append(others, remark(k.ID))
		case k.Disabled:
			disabled++
		}
	}
	if len(ours) > 0 {
		text += "; rekeyd already has " + strings.Join(ours, ", ")
	}
	if len(others) > 0 {
		text += "; another installation of rekeyd has " + strings.Join(others, ", ")
	}
	if disabled > 0 {
		text += fmt.Sprintf("; %d disabled", disabled)
	}
	return text
}

// policy proposes a policy for a key. What no policy can express stands there as a comment, with the reason.
func (p *proposal) policy(ctx context.Context, a elevenlabs.ServiceAccount, k elevenlabs.Key) string {
	sink, adopts, why := p.place(k)
	name := p.name(a, k, adopts)
	if !adopts {
		sink = ledger.Sink{Ref: p.under.Join(name), Field: "api_key"}
	}
	about := fmt.Sprintf("  # Key %s, hint %s, created %s, %d credits used in this period.\n", remark(k.Name), remark(k.Hint), created(k), k.CharacterCount)
	for _, line := range why {
		about += "  # " + line + "\n"
	}
	block := "  - name: " + scalar(name) + "\n    service_account: " + scalar(a.ID) + "\n" + settings(k.Settings)
	if adopts {
		block += "    adopt: " + scalar(k.ID) + "\n"
	} else {
		block += "    mode: paused # adopt: " + remark(k.ID) + "\n"
	}
	block += "    sink: {mount: " + scalar(sink.Mount) + ", path: " + scalar(sink.Path) + ", field: " + scalar(sink.Field) + "}\n"
	if why := p.faults(ctx, block); why != "" {
		return about + why + commented(block)
	}
	p.names[name], p.sinks[sink.Ref] = true, true
	p.proposed++
	if adopts {
		p.adopted++
	}
	return about + block
}

// firstKey proposes a policy that makes an account's first key, as a comment: what the key may do is for a person to say.
func (p *proposal) firstKey(a elevenlabs.ServiceAccount) string {
	name := p.name(a, elevenlabs.Key{}, false)
	ref := p.under.Join(name)
	p.names[name], p.sinks[ref] = true, true
	return "  # Decide: for a first key, which rekeyd makes at once, say what it may do and take the # from these lines.\n" +
		commented("  - name: "+scalar(name)+"\n    service_account: "+scalar(a.ID)+"\n    permissions: [text_to_speech]\n    sink: {mount: "+scalar(ref.Mount)+", path: "+scalar(ref.Path)+"}\n")
}

// faults says why a policy is not valid, as comments.
func (p *proposal) faults(ctx context.Context, block string) string {
	if !p.careful {
		return ""
	}
	_, err := config.CheckPolicies(ctx, config.Source{Text: p.head(vendorURL) + "\npolicies:\n" + block})
	if err == nil {
		return ""
	}
	var out strings.Builder
	for line := range strings.Lines(err.Error()) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		out.WriteString("  # Not possible: " + remark(text) + "\n")
	}
	return out.String()
}

// place chooses the record that holds the key, and says what else is known about where it is.
func (p *proposal) place(k elevenlabs.Key) (sink ledger.Sink, adopts bool, why []string) {
	known := p.Keys[k.ID]
	for _, s := range known.Held {
		switch {
		case adopts:
			why = append(why, "Decide: "+remark(s.String())+" holds its secret too, and would not rotate.")
		case p.sinks[s.Ref]:
			why = append(why, "Decide: "+remark(s.String())+" holds its secret, in a record that another policy publishes to.")
		default:
			sink, adopts = s.Sink, true
			if s.ByHint {
				why = append(why, "Decide: "+remark(s.String())+" ends as its hint does, which is all that is known; is it this key's secret?")
			}
		}
	}
	if !adopts && len(known.Maybe) > 0 {
		var all []string
		for _, s := range known.Maybe {
			all = append(all, remark(s.String()))
		}
		why = append(why, "Decide: its hint is that of several keys, and fits "+strings.Join(all, ", ")+".")
	}
	return sink, adopts, why
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// name is a free name for the policy of a key: the key's, with the account's where that is not enough.
func (p *proposal) name(a elevenlabs.ServiceAccount, k elevenlabs.Key, adopts bool) string {
	slug := func(text string) string {
		return strings.Trim(notInNames.ReplaceAllString(strings.ToLower(text), "-"), "-")
	}
	key, account := slug(k.Name), slug(cmp.Or(a.Name, a.ID))
	for i, base := range []string{key, strings.Trim(account+"-"+key, "-"), "key"} {
		for n := 1; base != "" && n < 10_000; n++ {
			suffix := ""
			if n > 1 {
				suffix = fmt.Sprintf("-%d", n)
			}
			name := strings.Trim(base[:min(len(base), 36-len(suffix))], "-") + suffix
			ref := p.under.Join(name)
			if !p.names[name] && !elevenlabs.LooksSecret(name) && (adopts || !p.Records[ref] && !p.sinks[ref]) {
				return name
			}
			if i == 0 {
				break // the account's name says more than a number
			}
		}
	}
	return "key"
}

// settings are the fields of a policy that a key has.
func settings(s elevenlabs.Settings) string {
	text := "    permissions: all\n"
	if !s.Permissions.All {
		text = "    permissions: " + list(s.Permissions.Names, scalar) + "\n"
	}
	if len(s.AllowedIPs) > 0 {
		text += "    allowed_ips: " + list(s.AllowedIPs, func(p netip.Prefix) string { return scalar(address(p)) }) + "\n"
	}
	if s.CharacterLimit != nil {
		text += fmt.Sprintf("    character_limit: %d\n", *s.CharacterLimit)
	}
	for _, field := range []string{elevenlabs.FieldTTSConcurrency, elevenlabs.FieldDubbingConcurrency, elevenlabs.FieldMusicConcurrency, elevenlabs.FieldThirdPartyDisable} {
		if value := s.Text(field); value != "" && value != elevenlabs.NoneWord {
			text += "    " + field + ": " + value + "\n"
		}
	}
	return text
}

// list is a list in YAML, on one line.
func list[T any](all []T, text func(T) string) string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = text(one)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

var plainScalar = regexp.MustCompile(`^[a-z][A-Za-z0-9_/-]*$`)

// scalar is a text in YAML, in quotes where it might be read as something else.
func scalar(text string) string {
	if plainScalar.MatchString(text) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, text) {
		return text
	}
	return fmt.Sprintf("%q", text)
}

func address(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func created(k elevenlabs.Key) string {
	if k.CreatedAt.IsZero() {
		return "at an unknown time"
	}
	return k.CreatedAt.UTC().Format(time.DateOnly)
}

// remark is a text of others as part of a comment: on one line, without what looks like a secret.
func remark(text string) string {
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "…"
	}
	text = secret.HideShapes(text)
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%q", text)
	}
	return text
}

func commented(block string) string {
	var out strings.Builder
	for line := range strings.Lines(block) {
		out.WriteString("  # " + remark(strings.TrimRight(strings.TrimPrefix(line, "  "), "\n")) + "\n")
	}
	return out.String()
}
