// Package metrics has what Prometheus reads.
package metrics
