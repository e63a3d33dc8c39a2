// Package bench measures rekeyd beside its alternatives, in one run and on one machine. `make bench` runs it; nothing in
// it fails because something took long.
package bench
