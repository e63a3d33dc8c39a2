package vaulttest

import "syscall"

// diesWithUs makes the kernel kill the server when the test binary dies without running its cleanups.
func diesWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
