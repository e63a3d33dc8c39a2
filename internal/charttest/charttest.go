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

// Helm runs helm, which is built the first time. The error is what it said.
func Helm(tb testing.TB, args ...string) (string, error) {
	tb.Helper()
	return run(tb, tools.Program{Name: "helm", What: "helm once: about 2 minutes on two cores, 70 MB in .cache/helm"}, "", args...)
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
	return run(tb, tools.Program{Name: "manifests", What: "the strict decoder of Kubernetes objects once: less than a minute"}, manifests)
}

func run(tb testing.TB, p tools.Program, stdin string, args ...string) (string, error) {
	tb.Helper()
	binary, err := p.Build(context.Background(), os.Stderr)
	if err != nil {
		tb.Fatal(err)
	}
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
	APIVersion, Kind string
	Metadata         struct{ Name, Namespace string }
	JSON             json.RawMessage // all of it
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

// Path is where the API server has objects of this kind in this namespace.
func (o Object) Path() string {
	prefix := "/apis/"
	if !strings.Contains(o.APIVersion, "/") {
		prefix = "/api/"
	}
	plural := strings.ToLower(o.Kind) + "s"
	if stem, ok := strings.CutSuffix(plural, "ys"); ok {
		plural = stem + "ies"
	}
	return prefix + o.APIVersion + "/namespaces/" + o.Metadata.Namespace + "/" + plural
}
