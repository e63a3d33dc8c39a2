// Command vaultbin prints the path of the Vault server that the tests use, and builds it first where there is
// none: `go run ./internal/vaulttest/vaultbin` shows the progress that `go test` would hold back.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	path, err := vaulttest.Find(ctx, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vaultbin:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
