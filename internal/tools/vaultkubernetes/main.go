// Command vaultkubernetes is Vault's own auth plugin for Kubernetes, built from its module, for tests that register it
// as an external plugin: the Vault of the tests is built without it.
package main

import (
	"log"
	"os"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
)

func main() {
	client := &api.PluginAPIClientMeta{}
	if err := client.FlagSet().Parse(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: kubernetes.Factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(client.GetTLSConfig()),
	})
	if err != nil {
		log.Fatal(err)
	}
}
