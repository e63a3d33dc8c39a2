package daemon

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
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
)

// page is the status page and the same as JSON.
type page struct {
	d        *Daemon
	template *template.Template
	policy   string // Content-Security-Policy: nothing but the one style sheet in the page
}

func newPage(d *Daemon) *page {
	sum := sha256.Sum256([]byte(pageCSS))
	return &page{
		d:        d,
		template: template.Must(template.New("page").Funcs(template.FuncMap{"join": strings.Join}).Parse(pageHTML)),
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
}

// shown is what the template is given.
type shown struct {
	View
	Now          time.Time
	Style        template.CSS
	Version      string
	Ready        string // why the daemon is not
	ReloadFailed string
}

func (p *page) html(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	err := p.template.Execute(&body, shown{
		View: ViewOf(p.d.rotator.Snapshot()), Now: time.Now(), Style: template.CSS(pageCSS), Version: p.d.cfg.Version, //nolint:gosec // our own file
		Ready: text(p.d.ready(r.Context())), ReloadFailed: p.d.reloadFault(),
	})
	p.send(w, "text/html; charset=utf-8", body.String(), err)
}

func (p *page) json(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(ViewOf(p.d.rotator.Snapshot()), "", "  ")
	p.send(w, "application/json", string(body)+"\n", err)
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
