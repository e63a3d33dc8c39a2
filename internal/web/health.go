package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
)

// healthTimeout bounds how long the daemon may take to answer.
const healthTimeout = 4 * time.Second

// Healthy asks the daemon that runs on this host with the same environment whether it is alive, and returns its answer.
// An error says why it is not, or that there is no answer. Where the listener demands a password, the demand itself is
// the answer: it shows that the daemon listens, and no more.
func Healthy(ctx context.Context, env config.Env) (answer string, err error) {
	c, err := readWebConfig(env.WebConfigFile)
	if err != nil {
		return "", fmt.Errorf("reading REKEYD_WEB_CONFIG_FILE: %w", err)
	}
	url := "http://" + probeAddr(env.ListenAddr) + "/healthz"
	if len(c.TLS) > 0 {
		url = strings.Replace(url, "http", "https", 1)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("asking REKEYD_LISTEN_ADDR: %w", err)
	}
	req.Host = "localhost" // REKEYD_LISTEN_ADDR may have another name for loopback
	// No proxy, and no check of the certificate: it bears the name that other hosts use, and the request holds no secret.
	client := http.Client{Timeout: healthTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // see above
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking the daemon: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // a partial answer is one, too
	switch answer = strings.TrimSpace(string(text)); {
	case resp.StatusCode == http.StatusUnauthorized && len(c.Users) > 0:
		return "listening, and demands a password", nil
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("asking the daemon: HTTP %d: %s", resp.StatusCode, answer)
	}
	return answer, nil
}

// probeAddr returns the address at which a process on the same host reaches a listener.
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
