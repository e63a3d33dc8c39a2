package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
)

const (
	healthTimeout = 4 * time.Second  // how long the daemon may take to say that it is alive
	askTimeout    = 30 * time.Second // how long it may take to answer anything else
	maxAnswer     = 64 << 20
)

// Healthy asks the daemon that runs on this host with the same environment whether it is alive, and returns its answer.
// An error says why it is not, or that there is no answer. Where the listener demands a password, the demand itself is
// the answer: it shows that the daemon listens, and no more.
func Healthy(ctx context.Context, env config.Env) (answer string, err error) {
	status, text, password, err := get(ctx, env, "/healthz", healthTimeout)
	switch {
	case err != nil:
		return "", err
	case status == http.StatusUnauthorized && password:
		return "listening, and demands a password", nil
	case status != http.StatusOK:
		return "", fmt.Errorf("asking the daemon: HTTP %d: %s", status, excerpt(text))
	}
	return excerpt(text), nil
}

// Ask asks the same daemon for a path. It sends no credential, since another process may have taken the address.
func Ask(ctx context.Context, env config.Env, path string) ([]byte, error) {
	status, text, _, err := get(ctx, env, path, askTimeout)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("asking the daemon for %s: HTTP %d: %s", path, status, excerpt(text))
	}
	return text, nil
}

// excerpt returns the beginning of an answer.
func excerpt(text []byte) string { return strings.TrimSpace(string(text[:min(len(text), 1<<10)])) }

// get asks the daemon on this host, and returns too whether its listener demands a password.
func get(ctx context.Context, env config.Env, path string, limit time.Duration) (status int, text []byte, password bool, err error) {
	c, err := readWebConfig(env.WebConfigFile)
	if err != nil {
		return 0, nil, false, fmt.Errorf("reading REKEYD_WEB_CONFIG_FILE: %w", err)
	}
	url := "http://" + probeAddr(env.ListenAddr) + path
	if len(c.TLS) > 0 {
		url = strings.Replace(url, "http", "https", 1)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, false, fmt.Errorf("asking REKEYD_LISTEN_ADDR: %w", err)
	}
	req.Host = "localhost" // REKEYD_LISTEN_ADDR may have another name for loopback
	// No proxy, and no check of the certificate: it bears the name that other hosts use, and the request holds no secret.
	client := http.Client{Timeout: limit, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // see above
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, false, fmt.Errorf("asking the daemon: %w%s", err, absent(err))
	}
	defer func() { _ = resp.Body.Close() }()
	text, err = io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, false, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return resp.StatusCode, text, len(c.Users) > 0, nil
}

// absent is what to do where nothing listens.
func absent(err error) string {
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return "; start the daemon, or give REKEYD_LISTEN_ADDR as the daemon has it"
	}
	return ""
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
