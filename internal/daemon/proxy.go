package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/secret"
)

// proxyVariables name the proxies of net/http, which silently ignores one that it cannot parse, and of Vault's client.
func proxyVariables() []string {
	return append([]string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"}, vaultProxies()...)
}

// vaultProxies name the proxy of Vault's client, which reads the first two itself; the first that is set counts.
func vaultProxies() []string {
	return []string{"VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY", "BAO_PROXY_ADDR", "BAO_HTTP_PROXY"}
}

// useProxy lets Vault's client use the proxy that the environment names for it.
func useProxy(client *http.Client, lookuper envconfig.Lookuper) {
	t, ok := client.Transport.(*http.Transport)
	for _, name := range vaultProxies() {
		if value, _ := lookuper.Lookup(name); ok && value != "" {
			if u, err := proxyOf(value); err == nil { // else proxyFaults refused it
				t.Proxy = http.ProxyURL(u)
			}
			return
		}
	}
}

// proxyOf parses a proxy as net/http does: a URL, or a host with or without a port. Its errors do not quote the value.
func proxyOf(value string) (*url.URL, error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("it is neither a URL nor a host with a port")
	case !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		return nil, errors.New("its scheme is none of http, https, socks5 and socks5h")
	}
	return u, nil
}

// proxyFaults refuses proxies that would silently be ignored.
func proxyFaults(lookuper envconfig.Lookuper) config.Faults {
	var faults config.Faults
	for _, name := range proxyVariables() {
		value, _ := lookuper.Lookup(name)
		if value == "" {
			continue
		}
		if _, err := proxyOf(value); err != nil {
			faults = append(faults, config.Fault{Text: fmt.Sprintf("%s cannot be used: %v; write http://HOST:PORT", name, err)})
		}
	}
	return faults
}

// holdProxyCredentials has the proxies' passwords redacted.
func holdProxyCredentials(lookuper envconfig.Lookuper, redactor *secret.Redactor) {
	if lookuper == nil {
		return
	}
	for _, name := range proxyVariables() {
		value, _ := lookuper.Lookup(name)
		u, err := proxyOf(value)
		if err != nil || u.User == nil {
			continue
		}
		user := u.User.Username()
		password, set := u.User.Password()
		if !set {
			password = user // a token
		}
		for _, key := range []string{password, user + ":" + password, u.User.String()} {
			redactor.Add(secret.New(key)) // for the process's life, as the variable
		}
	}
}
