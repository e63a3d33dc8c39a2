package doctest

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	code     = regexp.MustCompile("(?ms)^ *```.*?^ *```$|<!--.*?-->|`[^`\n]*`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	noted    = regexp.MustCompile(`\[\^[^\]]+\]`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInURL = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	mermaid  = regexp.MustCompile("(?ms)^```mermaid\n\\s*(\\S+)")
)

// TestLinks follows every link from page to page, and every footnote.
func TestLinks(t *testing.T) {
	t.Parallel()
	all, links := pages(t), 0
	for name, text := range all {
		prose := code.ReplaceAllString(text, "")
		for _, l := range link.FindAllStringSubmatch(prose, -1) {
			links++
			if err := follow(all, name, l[1]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, note := range noted.FindAllString(prose, -1) {
			if strings.Count(prose, note) < 2 || !strings.Contains(prose, "\n"+note+": ") {
				t.Errorf("%s: the footnote %s is not defined, or not used", name, note)
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links were found", links)
	}
	for _, broken := range []string{"nowhere.md", "docs/README.md#nowhere", "#nowhere"} {
		if follow(all, "README.md", broken) == nil {
			t.Errorf("%s is not found to be broken", broken)
		}
	}
}

// follow looks for what a link of a page points at; what is elsewhere is not looked for.
func follow(all map[string]string, page, target string) error {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return nil
	}
	file, anchor, hasAnchor := strings.Cut(target, "#")
	to := page
	if file != "" {
		to = path.Join(path.Dir(page), file)
	}
	if _, err := os.Stat(path.Join(repository, to)); err != nil {
		return fmt.Errorf("there is no %s: %w", target, err)
	}
	if hasAnchor && !slices.Contains(anchors(all[to]), anchor) {
		return fmt.Errorf("%s: %s has no such heading", target, to)
	}
	return nil
}

// anchors are those that GitHub gives to the headings of a page.
func anchors(text string) []string {
	var found []string
	for _, h := range heading.FindAllStringSubmatch(regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(text, ""), -1) {
		anchor := strings.ReplaceAll(notInURL.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
		for base, n := anchor, 1; slices.Contains(found, anchor); n++ {
			anchor = fmt.Sprintf("%s-%d", base, n)
		}
		found = append(found, anchor)
	}
	return found
}

// TestDiagrams looks at the first word of each Mermaid diagram, which says what it is.
func TestDiagrams(t *testing.T) {
	t.Parallel()
	kinds := []string{"stateDiagram-v2", "sequenceDiagram", "flowchart", "gantt", "timeline"}
	for name, text := range pages(t) {
		for _, m := range mermaid.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(kinds, m[1]) {
				t.Errorf("%s: %q is not one of Mermaid's diagrams that are used here: %q", name, m[1], kinds)
			}
		}
	}
}
