package daemon

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
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

// pagePolicy is the Content-Security-Policy: nothing but what this listener serves, and nobody may frame it.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'self'; frame-ancestors 'none'"

// page is the status page, what keeps it up to date, and the same as JSON.
type page struct {
	d        *Daemon
	template *template.Template
}

func newPage(d *Daemon) *page {
	return &page{d, template.Must(template.New("page").Funcs(template.FuncMap{"join": strings.Join}).Parse(pageHTML))}
}

// shown is what the template is given.
type shown struct {
	selection
	Workspaces   []WorkspaceView
	Version      string
	Ready        string // why the daemon is not
	ReloadFailed string
	Admin        bool // there is an admin token, so rotations can be asked for
	now          time.Time
}

// At shows a moment that belongs to no policy.
func (s shown) At(t time.Time) moment { return momentOf(t, s.now, time.UTC, "not yet") }

func (p *page) show(r *http.Request) shown {
	snapshot, now := p.d.rotator.Snapshot(), time.Now()
	view := ViewOf(snapshot)
	return shown{
		selection: selected(rowsOf(snapshot, view, now), r.URL.Query()), Workspaces: view.Workspaces, Version: p.d.cfg.Version,
		Ready: text(p.d.ready(r.Context())), ReloadFailed: p.d.reloadFault(), Admin: p.d.cfg.Env.AdminToken.IsSet(), now: now,
	}
}

func (p *page) html(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	err := p.template.Execute(&body, p.show(r))
	p.send(w, "text/html; charset=utf-8", body.String(), err)
}

// parts is what changes while somebody looks at the page: its parts as JSON, by the id of their element.
func (p *page) parts(w http.ResponseWriter, r *http.Request) {
	s, parts := p.show(r), map[string]string{}
	for _, id := range []string{"faults", "summary", "rows", "workspaces"} {
		var part strings.Builder
		if err := p.template.ExecuteTemplate(&part, id, s); err != nil {
			p.send(w, "", "", err)
			return
		}
		parts[id] = part.String()
	}
	body, err := json.Marshal(parts)
	p.send(w, "application/json", string(body), err)
}

func (p *page) json(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(ViewOf(p.d.rotator.Snapshot()), "", "  ")
	p.send(w, "application/json", string(body)+"\n", err)
}

// asset serves a file of the page. It tells nothing about policies.
func asset(kind, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write([]byte(text)) // an error means that the client has gone
	}
}

func (p *page) send(w http.ResponseWriter, kind, body string, err error) {
	if err != nil {
		http.Error(w, fmt.Sprintf("making the page: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write([]byte(p.d.redactor.Cut(body))) // an error means that the client has gone
}

// reloadFault is what the last reload failed with.
func (d *Daemon) reloadFault() string {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	return d.lastFailed
}
