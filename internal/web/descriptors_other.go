//go:build !linux && !darwin

package web

// connectionLimit is constant where the limit on descriptors cannot be read.
func connectionLimit() int { return maxConnections }
