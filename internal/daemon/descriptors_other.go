//go:build !linux && !darwin

package daemon

// connectionLimit is the same for every process where there is no limit on descriptors that can be asked for.
func connectionLimit() int { return maxConnections }
