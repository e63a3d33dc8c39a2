package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// front refuses what no honest client sends, before anything is authenticated or counted. A listener on loopback trusts
// its clients because they are on this host, but a browser there acts for every page that its user opens: DNS can point
// the page's own name at loopback, which Host shows, and the page can send requests here, which the browser marks.
func front(local bool, next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case local && !loopbackName(r.Host):
			http.Error(w, "This listener is on loopback and answers to localhost, 127.0.0.1 and [::1] only; a proxy in front of it must send one of them as Host.",
				http.StatusMisdirectedRequest)
		case origins.Check(r) != nil || fetchedElsewhere(r):
			http.Error(w, "A page of another origin sent this request. Use the status page of this daemon, or a client that is no browser.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopbackName reports whether a Host, with or without a port, names loopback without asking a DNS server.
func loopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// fetchedElsewhere reports whether a page of another origin makes the browser send the request, other than by a link
// that the user follows. Even a GET can carry a wrong password.
func fetchedElsewhere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}
