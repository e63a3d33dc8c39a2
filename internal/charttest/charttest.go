// Package charttest renders the Helm chart with the real helm, for tests.
package charttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/tools"
)

const chart = "../../deploy/helm/rekeyd" // from any package of internal

// Binary returns the path of helm, which is built the first time.
func Binary(tb testing.TB) string {
	tb.Helper()
	return build(tb, "helm", "helm once: about 2 minutes on two cores, 70 MB in .cache/helm")
}

// Helm runs helm. The error is what it said.
func Helm(tb testing.TB, args ...string) (string, error) {
	tb.Helper()
	return run(tb, Binary(tb), "", args...)
}

// Render returns the chart's objects as YAML, of the release and in the namespace rekeyd.
func Render(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := Helm(tb, append([]string{"template", "rekeyd", chart, "--namespace", "rekeyd"}, args...)...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Decode reads objects into their Go types, strictly, and names them, one a line. The error names each fault.
func Decode(tb testing.TB, manifests string) (string, error) {
	tb.Helper()
	return run(tb, build(tb, "manifests", "the strict decoder of Kubernetes objects once: less than a minute"), manifests)
}

func build(tb testing.TB, name, what string) string {
	tb.Helper()
	binary, err := tools.Program{Name: name, What: what}.Build(context.Background(), os.Stderr)
	if err != nil {
		tb.Fatal(err)
	}
	return binary
}

func run(tb testing.TB, binary, stdin string, args ...string) (string, error) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), binary, args...) //nolint:gosec // built by us
	home := tb.TempDir()                                      // where no cluster is known
	cmd.Env, cmd.Stdin = []string{"HOME=" + home}, strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", filepath.Base(binary), err, stderr.String())
	}
	return string(out), nil
}

// Object is one that was rendered.
type Object struct {
	Kind     string
	Metadata struct {
		Name       string
		Generation int // changes with the object's spec, where the API server has it
	}
	JSON json.RawMessage `json:"-"` // all of it
}

// Objects reads rendered YAML.
func Objects(tb testing.TB, manifests string) []Object {
	tb.Helper()
	var objects []Object
	for dec := yaml.NewDecoder(strings.NewReader(manifests)); ; {
		var document map[string]any
		err := dec.Decode(&document)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err == nil && document == nil {
			continue
		}
		var o Object
		if err == nil {
			o.JSON, err = json.Marshal(document)
		}
		if err == nil {
			err = json.NewDecoder(bytes.NewReader(o.JSON)).Decode(&o)
		}
		if err != nil {
			tb.Fatalf("reading what was rendered: %v", err)
		}
		objects = append(objects, o)
	}
}
