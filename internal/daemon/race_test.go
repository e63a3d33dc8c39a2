//go:build race

package daemon

// defaultEdits are fewer here: the race detector makes them some ten times slower.
const defaultEdits = 250
