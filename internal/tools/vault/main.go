// Command vault is HashiCorp Vault's own server and command line, built from its published module for this
// project's tests. It is a module of its own, so that nothing of it gets into rekeyd.
//
// Build it with -tags minimal: without the plugins for clouds and databases.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
