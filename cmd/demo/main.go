// Command demo is rekeyd's main job in one process, with nothing to set up: the simulator in place of ElevenLabs,
// files in place of Vault (a real Vault where VAULT_ADDR is set), and policies that rotate every few seconds.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	d := demo{env: config.OrBao(envconfig.OsLookuper()), policies: embedded, dir: "rekeyd-data", listen: "127.0.0.1:9466", out: os.Stdout}
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
