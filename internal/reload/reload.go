// Package reload reloads one server: it runs the way the configuration names
// (a systemd unit, a command, a signal), bounded and without a shell, and it
// decides when: never two at once, at least a minute apart, equal requests once,
// and not more often than is sensible.
package reload

import (
	"context"
	"time"
)

// Way is one way to reload a server: exactly one of Unit, Command and Signal.
type Way struct {
	Unit    string
	Command []string
	Signal  string
	PIDFile string
}

// Server is a server that can be reloaded.
type Server struct {
	Name string
	Way  Way
	Test []string // run first; a failure means that the reload is not run
	Then *Way     // another way, tried last
}

// Step is which of a server's ways a request asks for.
type Step string

// The steps, in the order in which they are tried.
const (
	First Step = "first" // the way
	Touch Step = "touch" // new time stamps on the files, then the way
	Last  Step = "last"  // Then, or the way where there is none
)

// Result is what a reload did. It judges nothing: whether the new certificate is
// served only a handshake can say.
type Result struct {
	OK  bool
	How string // unit, command, signal, or test when Server.Test failed
	// Interrupted: the context ended first. Whether the server was reloaded is
	// not known, and nobody is to blame: probe.
	Interrupted bool
	ExitCode    *int   // of a command
	Output      string // at most 2 KiB, printable
	Detail      string // one sentence when it failed, or when files could not be touched
	Hint        string
	Took        time.Duration
}

// Units reloads systemd units. The result is systemd's word: done, failed,
// canceled, timeout, dependency, skipped, invalid (the unit is not active).
// Reload must return soon after ctx has ended. An error may have a method
// Hint() string.
type Units interface {
	Reload(ctx context.Context, unit string) (result string, err error)
}
