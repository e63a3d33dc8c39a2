package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden protects the secrets in this process's memory: a crash writes no core file, even if core_pattern names a program,
// and no other process of the same user may trace it or read its memory, environment and open files.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core files off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("closing the memory to other processes: %w", err)
	}
	return nil
}
