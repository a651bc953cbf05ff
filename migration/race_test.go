//go:build race

package migration

// raceDetector empties pools at random, so that what is pooled is allocated.
const raceDetector = true
