//go:build !linux

package main

import "io"

// hideInput does nothing: its calls exist on Linux only.
func hideInput(io.Reader) (show func(), hidden bool) { return func() {}, false }
