package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sizeOf returns the size of a terminal in characters, 0 where it is unknown.
func sizeOf(stdout io.Writer) (rows, columns int) {
	f, ok := stdout.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Row), int(size.Col)
}
