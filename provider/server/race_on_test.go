//go:build race

package server_test

// raceDetector says whether the race detector is on. With it, pools drop buffers at
// random, so memory cannot be measured.
const raceDetector = true
