//go:build !race

package server_test

// raceDetector says whether the race detector is on.
const raceDetector = false
