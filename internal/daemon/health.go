package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/smallfile"
)

// healthTimeout is how long the daemon may take to say that it is alive.
const healthTimeout = 4 * time.Second

// webConfig is what matters here of the file that the web toolkit reads.
type webConfig struct {
	TLS   map[string]any    `yaml:"tls_server_config"`
	Users map[string]string `yaml:"basic_auth_users"`
}

const maxWebConfig = 1 << 20

// readWebConfig reads the file anew, as the toolkit does at each request. Without a file it is empty.
func readWebConfig(file string) (c webConfig, err error) {
	if file == "" {
		return c, nil
	}
	text, err := smallfile.Read(context.Background(), file, maxWebConfig)
	if err == nil {
		err = yaml.Unmarshal(text, &c)
	}
	return c, err
}

// Healthy asks the daemon that runs beside the caller with the same environment whether it is alive, and returns what
// it said. An error says why it is not, or that nobody answered. Where the listener demands a password, the demand is
// the answer: it shows that somebody listens, and no more.
func Healthy(ctx context.Context, env config.Env) (answer string, err error) {
	c, err := readWebConfig(env.WebConfigFile)
	if err != nil {
		return "", fmt.Errorf("reading REKEYD_WEB_CONFIG_FILE: %w", err)
	}
	url := "http://" + probeAddr(env.ListenAddr) + "/healthz"
	if len(c.TLS) > 0 {
		url = strings.Replace(url, "http", "https", 1)
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("asking REKEYD_LISTEN_ADDR: %w", err)
	}
	req.Host = "localhost" // whatever name REKEYD_LISTEN_ADDR has for loopback
	// No proxy, and no look at the certificate: it bears the name by which others call this host, and nothing is sent.
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // see above
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking the daemon: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // half of an answer is an answer
	switch answer = strings.TrimSpace(string(text)); {
	case resp.StatusCode == http.StatusUnauthorized && len(c.Users) > 0:
		return "somebody listens, and asks for a password", nil
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("asking the daemon: HTTP %d: %s", resp.StatusCode, answer)
	}
	return answer, nil
}

// probeAddr is the address at which a process of the same host reaches a listener.
func probeAddr(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
