package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/web"
)

// Bounds of --interval: every look reads the ledger and lists the workspaces.
const (
	leastInterval = time.Second
	mostInterval  = time.Hour
)

// watch is `rekeyd status --watch`, until an interrupt, which is its regular end. Once it has begun, what fails is told and
// tried again.
func (a app) watch(ctx context.Context, o options, look func(context.Context) (web.View, error)) error {
	w := watcher{app: a, options: o}
	for {
		view, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && w.shown == nil:
			return err
		case err != nil:
			w.report(err)
		default:
			if err := w.draw(view, time.Now()); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.interval):
		}
	}
}

// watcher shows one view after another. As with kubectl get --watch, a pipe has the whole table once, and then the line of each
// policy that changed. A terminal is redrawn. Programs get the whole document again when something changed.
type watcher struct {
	app
	options
	shown map[string]string // each policy as it was shown last, as JSON
	last  string            // the last fault that was reported
}

func (w *watcher) draw(view web.View, now time.Time) error {
	all, before := slices.Concat(view.Policies, view.Unmanaged), w.shown
	w.shown = map[string]string{}
	for _, p := range all {
		text, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("comparing policy %s: %w", p.Name, err)
		}
		w.shown[p.Name] = string(text)
	}
	var err error
	lines, colors := columns(statusRows(all, w.format == formatWide, now)), append([]string{bold}, trouble(all)...)
	switch {
	case w.redraws():
		head := fmt.Sprintf("Every %s, last at %s; Ctrl-C ends it", config.FormatDuration(w.interval), now.UTC().Format(time.RFC3339))
		err = w.print("\x1b[H\x1b[2J%s\n\n", safe(head))
		w.last = "" // it is no longer on the screen
		lines, colors = w.fit(lines, colors, all, unreachable(view))
	case w.format.document() && maps.Equal(before, w.shown):
		return nil
	case w.format == formatYAML:
		err = w.print("---\n")
	case before != nil:
		for i := len(all); i >= 0; i-- {
			if i == 0 || before[all[i-1].Name] == w.shown[all[i-1].Name] {
				lines, colors = slices.Delete(lines, i, i+1), slices.Delete(colors, i, i+1)
			}
		}
	}
	if w.format.document() {
		err = errors.Join(err, w.document(w.format, view))
	} else {
		err = errors.Join(err, w.lines(lines, colors))
	}
	w.report(unreachable(view))
	return err
}

// fit cuts a table to what is left of the screen below its head and above the fault that will be reported. The last line says what is not
// shown.
func (w *watcher) fit(lines, colors []string, all []web.PolicyView, fault error) (fitting, painted []string) {
	size := w.size
	if size == nil {
		size = sizeOf
	}
	rows, width := size(w.stdout)
	if rows <= 0 || width <= 0 {
		return lines, colors
	}
	height := func(line string) int { return 1 + (max(utf8.RuneCountInString(line), 1)-1)/width }
	room := rows - 3 // the head, a blank line, and the one with the cursor
	if fault != nil {
		for line := range strings.Lines(fault.Error()) {
			room -= height("rekeyd: error: " + line)
		}
	}
	used, fits := 0, 1 // the heading stays
	for i, line := range lines {
		if used += height(line); used < room { // one is for the last line
			fits = i + 1
		}
	}
	if used <= room || fits == len(lines) {
		return lines, colors
	}
	hidden := all[fits-1:]
	words := fmt.Sprintf("%d more", len(hidden))
	if n := len(slices.DeleteFunc(slices.Clone(hidden), func(p web.PolicyView) bool { return !troubled(p.State) })); n > 0 {
		words += fmt.Sprintf(", %d failing or in error: --state failing,error", n)
	}
	return append(slices.Clone(lines[:fits]), words), append(slices.Clone(colors[:fits]), dim)
}

// redraws reports whether stdout is a screen that can be drawn on again.
func (w *watcher) redraws() bool {
	kind, _ := w.lookuper.Lookup("TERM")
	return w.isTerminal(w.stdout) && kind != "dumb" && !w.format.document()
}

// report writes an error to stderr, once while it stays the same.
func (w *watcher) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.last && err != nil {
		w.printError("error", err)
	}
	w.last = text
}
