package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// hideInput turns the echo of a terminal off until show is called; hidden says whether it is off.
func hideInput(stdin io.Reader) (show func(), hidden bool) {
	nothing := func() {}
	f, ok := stdin.(*os.File)
	if !ok {
		return nothing, false
	}
	fd := int(f.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nothing, false
	}
	silent := *was
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nothing, false
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, was) }, true // the terminal is gone if this fails
}

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
