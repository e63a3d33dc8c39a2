package doctest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// page is what is to be done with the commands of a page.
type page struct {
	world  string
	notRun string // why the page as a whole is not run
	steps  []step
}

// step is one command, or a file.
type step struct {
	line    int
	command string
	file    string // is to have the command's text as its content
	shown   *string
	exit    int
	wait    bool
	typed   string
}

var (
	parts     = regexp.MustCompile("(?ms)^ *<!--[ \n](.*?)-->$|^( *)```(\\w*)[^\n]*\n(.*?)^ *```$|^(#) ")
	directive = regexp.MustCompile(`(?s)^(world|not run|exit|file|run|wait|type)(?::? *|\n)(.*?)\s*$`)
	indented  = regexp.MustCompile(`(?m)^    (?:\$ )?(?:[A-Z_]+=\S* )?(?:bin/)?(?:rekeyd|vault|make|curl|kubectl|helm|go|git|export|systemctl)\b.*$`)
)

// parse reads a page. Whatever is not understood is a fault: nothing is left out in silence.
func parse(text string) (page, error) {
	var p page
	var next step // what comments said of the next block
	var why string
	headed := false
	for _, m := range parts.FindAllStringSubmatchIndex(text, -1) {
		part := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return text[m[2*i]:m[2*i+1]]
		}
		line := 1 + strings.Count(text[:m[0]], "\n")
		switch {
		case part(5) != "":
			headed = true
		case m[2] >= 0:
			d := directive.FindStringSubmatch(part(1))
			if d == nil {
				return p, fmt.Errorf("line %d: a comment that says nothing: %q", line, part(1))
			}
			if err := p.obey(d[1], d[2], line, headed, &next, &why); err != nil {
				return p, fmt.Errorf("line %d: %w", line, err)
			}
		default:
			next.line = line
			if why == "" {
				p.add(next, part(3), strings.ReplaceAll("\n"+part(4), "\n"+part(2), "\n")[1:])
			}
			next, why = step{}, ""
		}
	}
	if found := indented.FindString(parts.ReplaceAllString(text, "")); found != "" && p.notRun == "" {
		return p, fmt.Errorf("a command outside of a fenced block of sh or console: %s", strings.TrimSpace(found))
	}
	if p.world != "" && p.notRun != "" || p.world == "" && p.notRun == "" && len(p.steps) > 0 {
		return p, fmt.Errorf("it has commands: it needs a comment <!-- world: NAME --> or <!-- not run: WHY --> before its heading")
	}
	return p, nil
}

// obey takes one directive.
func (p *page) obey(word, value string, line int, headed bool, next *step, why *string) (err error) {
	switch word {
	case "world":
		p.world = value
	case "not run":
		if value == "" {
			return fmt.Errorf("not run, but why?")
		}
		if headed {
			*why = value
		} else {
			p.notRun = value
		}
	case "exit":
		next.exit, err = strconv.Atoi(value)
	case "file":
		next.file = value
	case "wait":
		next.wait = true
	case "type":
		next.typed = value
	case "run":
		p.steps = append(p.steps, step{line: line, command: value})
	}
	return err
}

// add takes a block.
func (p *page) add(s step, language, text string) {
	switch {
	case s.file != "" || language == "sh":
		s.command = text
		p.steps = append(p.steps, s)
	case language == "console":
		first := len(p.steps)
		for line := range strings.Lines(text) {
			command, begins := strings.CutPrefix(line, "$ ")
			more, goesOn := strings.CutPrefix(line, "> ")
			switch last := len(p.steps) - 1; {
			case begins:
				p.steps = append(p.steps, step{line: s.line, command: command, shown: new(string), wait: s.wait, typed: s.typed})
			case last < first: // output of nothing
				p.steps = append(p.steps, step{line: s.line, command: "false # a block of console begins with a command", shown: new(string)})
			case goesOn:
				p.steps[last].command += more
			default:
				*p.steps[last].shown += line
			}
			s.line++
		}
		p.steps[len(p.steps)-1].exit = s.exit
	}
}

// masks replace what is never twice the same.
var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\x1b\[[0-9;]*m|\r`), ""},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\b(\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d)\b`), "TIME"},
	{regexp.MustCompile(`hint \.\.\.\w{4}`), "hint"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ms|[µsmhd]))+\b`), "DURATION"},
	{regexp.MustCompile(`\d\.\d+e\+\d+`), "NUMBER"},
	{regexp.MustCompile(`\brekeyd\.[a-z0-9]{8}\.([a-z0-9-]+)\.[a-z0-9]{10}\b`), "rekeyd.OWNER.$1.ROTATION"},
	{regexp.MustCompile(`\b([0-9a-f]{32}|[0-9a-f]{8})\b`), "ID"},
	{regexp.MustCompile(`\breq_\w+`), "REQUEST"},
	{regexp.MustCompile(`\bdemo-\d+`), "demo-N"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`Vault \d+\.\d+\.\d+\S*\)`), "Vault VERSION)"},
	{regexp.MustCompile(`go\d+\.\d+(\.\d+)?`), "GO"},
	{regexp.MustCompile(`\b([a-z0-9]{10}|[a-z0-9]{12})\b`), "WORD"}, // ids of rotations and replicas look like any
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

func masked(text string) string {
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.by)
	}
	return strings.Trim(text, "\n")
}

// says reports whether the output is what the page shows.
func says(shown, output string) bool {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for line := range strings.SplitSeq(masked(shown), "\n") {
		if line == "..." {
			pattern.WriteString(`(.*\n)*`)
			continue
		}
		pattern.WriteString(regexp.QuoteMeta(line) + `\n`)
	}
	pattern.WriteString(`\z`)
	return regexp.MustCompile(pattern.String()).MatchString(masked(output) + "\n")
}
