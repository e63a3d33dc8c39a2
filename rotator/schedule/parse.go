package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/robfig/cron/v3"
)

// Limits of what is read as a schedule.
const (
	maxScheduleLen = 512                       // bytes; every minute and hour of a day written out take 240
	maxEvery       = 10 * 365 * 24 * time.Hour // longer is never, and overflows when durations are added to it
	quotedLen      = 60                        // bytes of a value repeated in an error
	scheduleHint   = "5 fields such as 0 3 * * 1, a word such as @daily, or an interval such as @every 36h"
	macroHint      = "@hourly, @daily, @weekly, @monthly, @yearly, or an interval such as @every 36h"
	zoneHint       = "an IANA name such as Europe/Oslo, or UTC"
)

// Error is a fault in what a policy says about its schedule.
type Error struct {
	Field   string // "schedule" or "timezone"
	Value   string // as written
	Problem string // what is wrong with the value and what to write instead; follows it in a sentence
}

// Error returns the field, the beginning of its value, and the problem, as one sentence.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s %s", e.Field, quote(e.Value), e.Problem)
}

// quote shows a value of any length and content on one short line.
func quote(value string) string {
	if len(value) > quotedLen {
		value = strings.ToValidUTF8(value[:quotedLen], "") + "…"
	}
	return fmt.Sprintf("%q", value)
}

// Parse reads a cron expression of 5 fields, @hourly and its like, or @every with a duration. An empty
// timezone means what a TZ= or CRON_TZ= prefix of the expression says, else UTC.
// The error joins one or two of [*Error]: schedule and timezone may both be wrong.
func Parse(expr, timezone string) (Schedule, error) {
	return new(Parser).Parse(expr, timezone)
}

// Parser is [Parse] for many policies: it reads each zone once, and its schedules share it.
// The zero value is ready. It must not be used concurrently.
type Parser struct {
	zones map[string]*time.Location
}

// Parse is [Parse]. Schedules from one parser are equal (==) when expression and zone are.
func (p *Parser) Parse(expr, timezone string) (Schedule, error) {
	prefix, words, problem := splitPrefix(expr, timezone)
	field, value, zone := "timezone", timezone, timezone
	if prefix != "" && timezone == "" {
		_, zone, _ = strings.Cut(prefix, "=")
		field, value = "schedule", expr
	}
	var zoneErr, exprErr error
	loc, zoneProblem := p.location(zone)
	if zoneProblem != "" {
		zoneErr = &Error{field, value, zoneProblem}
	}
	var s parts
	if problem == "" {
		s, problem = parseWords(words)
	}
	if problem != "" {
		exprErr = &Error{"schedule", expr, problem}
	}
	if err := errors.Join(exprErr, zoneErr); err != nil {
		return Schedule{}, err
	}
	s.loc = loc
	return Schedule{unique.Make(s)}, nil
}

// splitPrefix cuts an expression into its zone prefix ("" if it has none) and the words after it.
func splitPrefix(expr, timezone string) (prefix string, words []string, problem string) {
	if len(expr) > maxScheduleLen {
		return "", nil, fmt.Sprintf("is %d bytes long; write at most %d", len(expr), maxScheduleLen)
	}
	words = strings.Fields(expr)
	if len(words) == 0 {
		return "", nil, "is empty; write " + scheduleHint
	}
	if !isPrefix(words[0]) {
		return "", words, ""
	}
	prefix, words = words[0], words[1:]
	key, zone, _ := strings.Cut(prefix, "=")
	switch {
	case zone == "":
		return "", nil, fmt.Sprintf("has the prefix %s= without a zone; write %s=Europe/Oslo, or leave it out", key, key)
	case len(words) == 0:
		return prefix, nil, fmt.Sprintf("has nothing after %s; write %s", quote(prefix), scheduleHint)
	case isPrefix(words[0]):
		return prefix, nil, "has two time zone prefixes; write one"
	case timezone != "" && timezone != zone:
		return prefix, nil, fmt.Sprintf("has the prefix %s, but timezone is %s; write one of them", quote(prefix), quote(timezone))
	}
	return prefix, words, ""
}

func isPrefix(word string) bool {
	return strings.HasPrefix(word, "TZ=") || strings.HasPrefix(word, "CRON_TZ=")
}

// location returns the zone of that name, UTC if it is empty.
func (p *Parser) location(name string) (loc *time.Location, problem string) {
	if name == "" {
		return time.UTC, ""
	}
	if loc, ok := p.zones[name]; ok {
		return loc, ""
	}
	if strings.EqualFold(name, "local") || strings.EqualFold(name, "localtime") {
		return nil, "means another zone on each machine; write " + zoneHint
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, "names no known time zone; write " + zoneHint
	}
	if p.zones == nil {
		p.zones = make(map[string]*time.Location)
	}
	p.zones[name] = loc
	return loc, ""
}

// parseWords reads an expression without its prefix. The schedule's location is left to the caller.
func parseWords(words []string) (s parts, problem string) {
	s.expr = strings.Join(words, " ")
	switch first := words[0]; {
	case first == "@every":
		s.every, problem = parseEvery(words[1:])
		return s, problem
	case strings.HasPrefix(first, "@"):
		problem = macroProblem(words)
	default:
		problem = fieldsProblem(words)
	}
	if problem != "" {
		return s, problem
	}
	parsed, err := cron.ParseStandard(s.expr)
	spec, ok := parsed.(*cron.SpecSchedule)
	if err != nil || !ok {
		return s, "cannot be read; write " + scheduleHint
	}
	s.spec, s.spec.Location = *spec, time.UTC
	s.wild = words[0] == "@hourly" || len(words) == 5 && strings.ContainsAny(words[1], "*?")
	if s.nextOnWall(time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return s, "never fires: there is no such day in any year; write a day of the month that exists"
	}
	return s, ""
}

// parseEvery reads what follows @every.
func parseEvery(words []string) (every time.Duration, problem string) {
	if len(words) != 1 {
		return 0, "needs one duration after @every; write for example @every 36h"
	}
	every, err := time.ParseDuration(words[0])
	switch {
	case err != nil:
		return 0, fmt.Sprintf("has the duration %s, which cannot be read; write hours, minutes and seconds, as in 36h or 1h30m",
			quote(words[0]))
	case every < time.Second:
		return 0, fmt.Sprintf("has the interval %s; write at least 1s, as in @every 36h", quote(words[0]))
	case every%time.Second != 0:
		return 0, fmt.Sprintf("has the interval %s; write whole seconds, as in @every 36h", quote(words[0]))
	case every > maxEvery:
		return 0, fmt.Sprintf("has the interval %s; write at most %dh, which is ten years", quote(words[0]), maxEvery/time.Hour)
	}
	return every, ""
}

// macroProblem says what is wrong with an expression that starts with @.
func macroProblem(words []string) string {
	known := []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
	switch {
	case words[0] == "@reboot":
		return "would run at every start, which says nothing about when keys change; write " + macroHint
	case !slices.Contains(known, words[0]):
		return "has the unknown word " + quote(words[0]) + "; write " + macroHint
	case len(words) > 1:
		return "has more than " + words[0] + "; write " + words[0] + " alone"
	}
	return ""
}

// fieldsProblem says what is wrong with the five fields of an expression. It is stricter than robfig/cron, which
// reads "1,,2" as "1,2", "*-3" as "*" and "," as never.
func fieldsProblem(words []string) string {
	names := [...]string{"minute", "hour", "day-of-month", "month", "day-of-week"}
	values := [...]string{"0 to 59", "0 to 23", "1 to 31", "1 to 12 or jan to dec", "0 to 6 or sun to sat (Sunday is 0)"}
	if len(words) != len(names) {
		plural := "s"
		if len(words) == 1 {
			plural = ""
		}
		return fmt.Sprintf("has %d field%s; write 5: minute hour day-of-month month day-of-week", len(words), plural)
	}
	for i, word := range words {
		alone := [...]string{"*", "*", "*", "*", "*"}
		alone[i] = word
		if _, err := cron.ParseStandard(strings.Join(alone[:], " ")); err != nil || hasLooseItem(word) {
			return fmt.Sprintf("has the %s %s; write %s, alone or as in *, */2, 1-5 or 1,3", names[i], quote(word), values[i])
		}
	}
	return ""
}

// hasLooseItem says whether a field has an item that robfig/cron reads as something other than what is written.
func hasLooseItem(field string) bool {
	for item := range strings.SplitSeq(field, ",") {
		if item == "" || strings.Contains(item, "+") || strings.HasPrefix(item, "*-") || strings.HasPrefix(item, "?-") {
			return true
		}
	}
	return false
}
