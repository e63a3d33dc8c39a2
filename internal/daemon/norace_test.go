//go:build !race

package daemon

const defaultEdits = 2000
