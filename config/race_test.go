//go:build race

package config

// share divides the largest inputs that tests use: the race detector makes them some twenty times slower.
const share = 10
