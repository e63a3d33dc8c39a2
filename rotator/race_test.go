//go:build race

package rotator_test

const raceDetector = true
