//go:build !linux

package main

import "io"

// hideInput does nothing: its calls exist on Linux only.
func hideInput(io.Reader) (show func(), hidden bool) { return func() {}, false }

// sizeOf knows no size: its call exists on Linux only.
func sizeOf(io.Writer) (rows, columns int) { return 0, 0 }
