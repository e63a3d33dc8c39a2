//go:build !race

package config

// share divides the largest inputs that tests use: all of it.
const share = 1
