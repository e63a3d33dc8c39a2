// Package metrics exposes rekeyd's state to Prometheus.
package metrics
