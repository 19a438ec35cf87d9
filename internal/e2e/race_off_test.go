//go:build !race

package e2e

// raceEnabled: the binary under test is built with the race detector too.
const raceEnabled = false
