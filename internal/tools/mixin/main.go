// Command mixin works on jsonnet: `mixin eval FILE` prints the string that a file evaluates to, and `mixin fmt` formats its standard
// input as jsonnetfmt does. `mixin dashboard` reads a Grafana dashboard from its standard input into the types of the Grafana
// Foundation SDK; a field that they do not have, or that is missing, is a fault.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/formatter"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "eval":
		vm := jsonnet.MakeVM()
		vm.StringOutput = true
		text, err := vm.EvaluateFile(args[1])
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	case len(args) == 1 && args[0] == "fmt":
		text, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		formatted, err := formatter.Format("stdin", string(text), formatter.DefaultOptions())
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, formatted)
		return err
	case len(args) == 1 && args[0] == "dashboard":
		text, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		plugins.RegisterDefaultPlugins()
		var d dashboard.Dashboard
		err = d.UnmarshalJSONStrict(text)
		if faults := (cog.BuildErrors)(nil); errors.As(err, &faults) && len(faults) == 0 {
			err = nil // the SDK returns an empty list as an error
		}
		return errors.Join(err, d.Validate())
	}
	return errors.New("usage: mixin eval FILE | fmt | dashboard")
}
