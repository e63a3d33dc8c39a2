//go:build !race

package rotator_test

const raceDetector = false
