package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed *.html page.css page.js
var files embed.FS

// pagePolicy is the Content-Security-Policy: only what this listener serves, and in no frame.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'self'; frame-ancestors 'none'"

// pages returns the templates, each by the name of its file.
func pages() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{"join": strings.Join}).ParseFS(files, "*.html"))
}

// frame is what every page shows around its own.
type frame struct {
	Version string
	Here    string // the path, of a page that is linked on every page
	Ready   string // why the daemon is not
}

func (s *Server) frame(r *http.Request) frame {
	return frame{Version: s.cfg.Version, Ready: text(s.cfg.Ready(r.Context()))}
}

// listPage serves the page of all policies.
func (s *Server) listPage(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	s.render(w, "list.html", listOf(s.snapshot(), parseQuery("/", r.URL.Query()), now, s.frame(r), s.vitals(now)))
}

func (s *Server) render(w http.ResponseWriter, page string, data any) {
	var body bytes.Buffer
	err := s.pages.ExecuteTemplate(&body, page, data)
	s.send(w, "text/html; charset=utf-8", body.String(), err)
}

// asset serves a file of the pages, which describes no policy.
func asset(kind, name string) http.HandlerFunc {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return func(w http.ResponseWriter, _ *http.Request) { write(w, kind, string(body)) }
}

func (s *Server) send(w http.ResponseWriter, kind, body string, err error) {
	if err != nil {
		http.Error(w, fmt.Sprintf("making the page: %v", err), http.StatusInternalServerError)
		return
	}
	write(w, kind, s.cfg.Redactor.Cut(body))
}

// sendJSON answers with a document that people may read.
func (s *Server) sendJSON(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	s.send(w, "application/json", string(body)+"\n", err)
}

func write(w http.ResponseWriter, kind, body string) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write([]byte(body)) // fails when the client is gone
}
