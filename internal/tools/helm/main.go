// Command helm is helm, built from its module, for tests that render the chart.
package main

import (
	"log"
	"os"

	"helm.sh/helm/v4/pkg/cmd"
)

func main() {
	root, err := cmd.NewRootCmd(os.Stdout, os.Args[1:], cmd.SetupLogging)
	if err != nil {
		log.Fatal(err)
	}
	if root.Execute() != nil { // which has said why
		os.Exit(1)
	}
}
