package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/smallfile"
)

// webConfig is the part of the toolkit's file that matters here.
type webConfig struct {
	TLS   map[string]any    `yaml:"tls_server_config"`
	Users map[string]string `yaml:"basic_auth_users"`
}

const maxWebConfig = 1 << 20

// readWebConfig reads the file each time, as the toolkit does at each request. Without a file it is empty.
func readWebConfig(file string) (c webConfig, err error) {
	if file == "" {
		return c, nil
	}
	text, err := smallfile.Read(context.Background(), file, maxWebConfig)
	if err == nil {
		err = yaml.Unmarshal(text, &c)
	}
	return c, err
}

// yamlLine matches the place that an error of YAML names.
var yamlLine = regexp.MustCompile(`\bline (\d+):`)

// CheckConfig returns what is wrong with a web config, in one line. The line quotes nothing of the file where YAML would
// quote anything: it may be the wrong file, or have a hash in the wrong place.
func CheckConfig(file string) error {
	err := toolkit.Validate(file)
	if err == nil {
		return nil
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if !strings.HasPrefix(text, "yaml: ") {
		return errors.New(text)
	}
	var lines []string
	for _, found := range yamlLine.FindAllStringSubmatch(text, -1) {
		lines = append(lines, found[1])
	}
	where := ""
	if lines = slices.Compact(lines); len(lines) > 3 {
		lines = append(lines[:3], "…")
	}
	if len(lines) > 0 {
		where = ", line " + strings.Join(lines, ", ")
	}
	return fmt.Errorf("it is not what docs/http.md describes%s", where)
}

// toolkitLog drops the errors from the toolkit's log lines, which quote the file at each request when it cannot be parsed.
type toolkitLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (l toolkitLog) Handle(ctx context.Context, r slog.Record) error {
	kept := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "err" {
			kept.AddAttrs(a)
		}
		return true
	})
	return l.Handler.Handle(ctx, kept)
}
