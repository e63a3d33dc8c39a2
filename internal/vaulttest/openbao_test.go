package vaulttest

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
)

// TestStartsOpenBaoToo: OpenBao's server cannot be had here, so its start lines and its configuration are held against the names in
// its source (command/server.go, command/server/config.go, helper/configutil and physical/raft of v2.6.2): where it knew one no
// more, it would not start.
func TestStartsOpenBaoToo(t *testing.T) {
	flags := []string{"config", "dev", "dev-tls", "dev-tls-cert-dir", "dev-root-token-id", "dev-listen-address", "dev-no-store-token"}
	lines := [][]string{
		append(devLine("token", "127.0.0.1:1"), pluginFlags(openBao, "/plugins")...),
		append(devLine("token", "127.0.0.1:1"), tlsFlags("/tls")...),
	}
	flag := regexp.MustCompile(`^-([a-z-]+)(=|$)`)
	for _, line := range lines {
		for _, arg := range line[1:] {
			if m := flag.FindStringSubmatch(arg); line[0] != "server" || m == nil || !slices.Contains(flags, m[1]) {
				t.Errorf("OpenBao has no %s %s", line[0], arg)
			}
		}
	}
	// It no longer locks memory, and refuses disable_mlock = false.
	keys := []string{"disable_mlock", "api_addr", "cluster_addr", "path", "node_id", "performance_multiplier", "address", "cluster_address", "tls_disable"}
	text := fmt.Sprintf(configuration, "127.0.0.1:1", "127.0.0.1:2", "/data", "")
	for _, m := range regexp.MustCompile(`(?m)^\s*(\w+)\s*= *(\S+)`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(keys, m[1]) || m[1] == "disable_mlock" && m[2] != "true" {
			t.Errorf("OpenBao does not know %s = %s", m[1], m[2])
		}
	}
	if got := pluginFlags(vault, "/plugins"); !slices.Equal(got, []string{"-dev-plugin-dir=/plugins"}) {
		t.Errorf("Vault is started without its plugins: %q", got)
	}
}
