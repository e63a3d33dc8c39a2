package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// vendorOrigins are the five API origins of ElevenLabs.
func vendorOrigins() []string {
	return []string{
		"https://api.elevenlabs.io:443",
		"https://api.us.elevenlabs.io:443",
		"https://api.eu.residency.elevenlabs.io:443",
		"https://api.in.residency.elevenlabs.io:443",
		"https://api.sg.residency.elevenlabs.io:443",
	}
}

// parseBase parses a base URL. A flaw completes the sentence "X ..." and does not quote the URL, which may hold a
// password.
func parseBase(text string) (u *url.URL, flaw string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, "is not a URL; write one such as https://api.elevenlabs.io"
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, "is neither https nor http; write one such as https://api.elevenlabs.io"
	case u.User != nil:
		return nil, "holds a user name or password; remove what stands before the @"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#"):
		return nil, "has a query or fragment; remove what follows ? or #"
	}
	if flaw := hostFlaw(u); flaw != "" {
		return nil, flaw
	}
	return u, ""
}

// hostFlaw describes why a URL's host cannot be called.
func hostFlaw(u *url.URL) string {
	host := u.Hostname()
	if strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune(hostRunes, r) }) && !strings.HasPrefix(u.Host, "[") {
		return "has a host that is neither a name nor an address; write each host in full, without * or a space"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "has a port that is not from 1 to 65535; write the server's port"
		}
	}
	return ""
}

const hostRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

// origin returns scheme, lower-case host and effective port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// loopback reports whether requests to u stay on this machine.
func loopback(u *url.URL) bool {
	if strings.EqualFold(u.Hostname(), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// originFlaw describes why text is not scheme://host[:port]; "" if it is.
func originFlaw(text string) string {
	u, flaw := parseBase(text)
	if flaw == "" && u.Path != "" {
		flaw = "has a path; write scheme and host only, such as https://" + u.Host
	}
	return flaw
}

// pathFlaw describes why text is not a valid mount or path, in Vault and in files, as in "X ..."; "" if it is.
func pathFlaw(text string) string {
	odd := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune(pathRunes, r) })
	switch {
	case text == "":
		return "is empty"
	case strings.HasPrefix(text, "/"):
		return "is absolute"
	case strings.HasSuffix(text, "/"):
		return "ends with a slash"
	case strings.Contains(text, "//"):
		return "has an empty segment"
	case odd >= 0:
		return fmt.Sprintf("holds %q, which is not one of a-z A-Z 0-9 . _ @ = - /", []rune(text[odd:])[0])
	}
	for s := range strings.SplitSeq(text, "/") {
		if s == "." || s == ".." {
			return "has a segment " + s
		}
	}
	return ""
}

// pathPattern accepts exactly the texts without a pathFlaw.
const (
	pathPattern = `^` + pathSegment + `(/` + pathSegment + `)*$`
	pathSegment = `([.]*[A-Za-z0-9_@=-][A-Za-z0-9._@=-]*|[.]{3,})`
)

const pathRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@=-/"
