package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/web"
)

// entry is one file of a bundle.
type entry struct {
	name, about string
	text        []byte
	err         error // why it is missing, or what it lacks
}

// bundle is `rekeyd debug bundle`: one archive for an issue. What cannot be had is left out, and the archive says so. Nothing
// is written before every byte was searched for secrets.
func (a app) bundle(ctx context.Context, o options, _ []string) error {
	toStdout := o.file == "" || o.file == "-"
	if o.file == "" && a.isTerminal(a.stdout) {
		return usageError{errors.New("rekeyd debug bundle: an archive is not for a terminal; name a file with -o FILE, or redirect stdout")}
	}
	now := time.Now().UTC()
	entries, redactor := a.gather(ctx)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("making a bundle: %w", err)
	}
	v, rev := built()
	entries = append([]entry{{name: "README.txt", text: contents(entries, fmt.Sprintf("Made by rekeyd %s (revision %s) at %s.", v, rev, now.Format(time.RFC3339)))}}, entries...)
	for _, e := range entries {
		if text := string(e.text); redactor.Cut(text) != text || secret.HideShapes(text) != text || strings.Contains(text, "-----BEGIN ") {
			return fmt.Errorf("making a bundle: %s would hold a secret, or what looks like one; nothing was written: take it out of where it comes from, then try again", e.name)
		}
	}
	archive, err := packed(entries, now)
	if err != nil {
		return fmt.Errorf("making a bundle: %w", err)
	}
	if toStdout {
		return a.print("%s", safe(archive))
	}
	if err := create(o.file, archive); err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	return a.print("%s: no secret was found in it; look through it before you pass it on\n", o.file)
}

// gather makes the entries. The redactor holds every secret that was used.
func (a app) gather(ctx context.Context) ([]entry, *secret.Redactor) {
	env, _ := config.LoadEnv(a.lookuper) // usable with faults, which Load reports again
	secrets := env.Secrets(ctx)
	ctx, cancel := context.WithTimeout(ctx, commandTimeout(env))
	defer cancel()
	metrics, noMetrics := web.Ask(ctx, env, "/metrics")
	goroutines, noGoroutines := web.Ask(ctx, env, "/debug/pprof/goroutine?debug=2")
	policies, noPolicies := env.Source().Read(ctx)
	versions := []byte("built of\n")
	if info, ok := debug.ReadBuildInfo(); ok {
		versions = append(versions, info.String()...)
	}
	entries := []entry{
		{"metrics.txt", "what the daemon answers at /metrics", metrics, noMetrics},
		{"goroutines.txt", "what the daemon is doing; it says so with REKEYD_PPROF=true, on a loopback listener", goroutines, noGoroutines},
		{"policies.yaml", "the policy file", policies, noPolicies},
		{"environment.txt", "rekeyd's variables", []byte(strings.Join(config.Shown(a.environ), "\n") + "\n"), nil},
	}
	s, err := daemon.Load(a.lookuper)
	redactor := new(secret.Redactor)
	status, history := entry{name: "status.json", err: err}, entry{name: "history.json", err: err}
	if err == nil {
		s.Unwrapped = a.unwrapped
		if d, err := a.build(s, nil, nil); err != nil {
			status.err, history.err = err, err
		} else {
			redactor = d.Redactor()
			versions = fmt.Appendf(versions, "sink\t%s\n", d.SinkVersion(ctx))
			status.text, status.err = surveyed(ctx, d)
			history.text, history.err = told(ctx, d, s.Policies)
		}
	}
	for _, s := range secrets {
		redactor.Add(s)
	}
	status.about, history.about = "what rekeyd status -o json says", "what rekeyd history -o json says"
	return append(entries, entry{"versions.txt", "of rekeyd, of what it is built from, and of Vault", versions, nil}, status, history), redactor
}

// surveyed is the status as JSON; the error says what it lacks.
func surveyed(ctx context.Context, d *daemon.Daemon) ([]byte, error) {
	snapshot, err := d.Survey(ctx)
	if err != nil {
		return nil, err
	}
	view := web.ViewOf(snapshot)
	return encoded(view, unreachable(view))
}

// told is the history as JSON; the error says what it lacks.
func told(ctx context.Context, d *daemon.Daemon, c *config.Config) ([]byte, error) {
	all, err := recorded(ctx, d, c, nil)
	if err != nil {
		return nil, err
	}
	return encoded(rotations(ctx, d, all, false))
}

func encoded[T any](v T, lacks error) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), errors.Join(lacks, err)
}

// contents is the archive's first file: what is in it, and what is not.
func contents(entries []entry, made string) []byte {
	var rows [][]string
	for _, e := range entries {
		about := e.about
		switch {
		case e.err != nil && len(e.text) == 0:
			about += ": LEFT OUT: " + e.err.Error()
		case len(e.text) == 0:
			about += ": LEFT OUT: there is none"
		case e.err != nil:
			about += ": INCOMPLETE: " + e.err.Error()
		}
		rows = append(rows, []string{e.name, about})
	}
	return []byte(made + "\n\n" + strings.Join(columns(rows), "\n") + "\n")
}

// packed is the archive, which unpacks into one folder.
func packed(entries []entry, now time.Time) ([]byte, error) {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for _, e := range entries {
		if len(e.text) == 0 {
			continue
		}
		header := tar.Header{Name: "rekeyd-bundle/" + e.name, Mode: 0o600, Size: int64(len(e.text)), ModTime: now}
		if err := archive.WriteHeader(&header); err != nil {
			return nil, err //nolint:wrapcheck // the caller says what was attempted
		}
		if _, err := archive.Write(e.text); err != nil {
			return nil, err //nolint:wrapcheck // the caller says what was attempted
		}
	}
	err := errors.Join(archive.Close(), zipped.Close())
	return out.Bytes(), err
}

// create writes a file that does not exist yet, for its owner alone.
func create(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the path that the person names
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
