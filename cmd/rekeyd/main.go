// Command rekeyd rotates the API keys of ElevenLabs service accounts.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sethvargo/go-envconfig"
)

// Set by the linker: -ldflags "-X main.version=v1.2.3 -X main.revision=4f2a…".
var version, revision string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	a := app{lookuper: envconfig.OsLookuper(), environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, hangup: hangup}
	if err := harden(); err != nil {
		a.printError("warning", err) // a sandbox may forbid it, and rotation matters more
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}
