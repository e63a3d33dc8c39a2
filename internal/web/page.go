package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// pagePolicy is the Content-Security-Policy: only what this listener serves, and in no frame.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'self'; frame-ancestors 'none'"

// shown is the template's data.
type shown struct {
	selection
	Workspaces   []WorkspaceView
	Version      string
	Ready        string // why the daemon is not
	ReloadFailed string
	Admin        bool // an admin token is set, so the page offers rotations
	now          time.Time
}

// At shows a time that belongs to no policy.
func (s shown) At(t time.Time) moment { return momentOf(t, s.now, time.UTC, "not yet") }

func (s *Server) show(r *http.Request) shown {
	snapshot, now := s.cfg.Rotator.Snapshot(), time.Now()
	view := ViewOf(snapshot)
	return shown{
		selection: selected(rowsOf(snapshot, view, now), r.URL.Query()), Workspaces: view.Workspaces, Version: s.cfg.Version,
		Ready: text(s.cfg.Ready(r.Context())), ReloadFailed: s.cfg.ReloadFault(), Admin: s.cfg.AdminToken.IsSet(), now: now,
	}
}

func (s *Server) pageHTML(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	err := s.page.Execute(&body, s.show(r))
	s.send(w, "text/html; charset=utf-8", body.String(), err)
}

// pageParts serves what changes while the page is open: its parts as JSON, by the id of their element.
func (s *Server) pageParts(w http.ResponseWriter, r *http.Request) {
	data, parts := s.show(r), map[string]string{}
	for _, id := range []string{"faults", "summary", "rows", "workspaces"} {
		var part strings.Builder
		if err := s.page.ExecuteTemplate(&part, id, data); err != nil {
			s.send(w, "", "", err)
			return
		}
		parts[id] = part.String()
	}
	body, err := json.Marshal(parts)
	s.send(w, "application/json", string(body), err)
}

// asset serves a file of the page, which describes no policy.
func asset(kind, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { write(w, kind, text) }
}

func (s *Server) send(w http.ResponseWriter, kind, body string, err error) {
	if err != nil {
		http.Error(w, fmt.Sprintf("making the page: %v", err), http.StatusInternalServerError)
		return
	}
	write(w, kind, s.cfg.Redactor.Cut(body))
}

func write(w http.ResponseWriter, kind, body string) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write([]byte(body)) // fails when the client is gone
}
