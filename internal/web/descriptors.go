//go:build linux || darwin

package web

import "golang.org/x/sys/unix"

// connectionLimit leaves three quarters of the process's file descriptors to its own calls and files: without those it
// cannot rotate. Go has raised the soft limit to the hard one.
func connectionLimit() int {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return maxConnections
	}
	return int(max(4, min(maxConnections, files.Cur/4)))
}
