// Command quickstart shows renewatch at work, on a machine that has nothing but
// Go: a certificate is renewed, nobody tells the server, renewatch notices,
// reloads it, proves by handshakes that the new certificate is served, and tells
// the story over NATS.
//
//	go run ./examples/quickstart
//
// Every part is a real one: pebble (Let's Encrypt's own test server) is the CA,
// lego is the ACME client, the TLS server is a process of its own that keeps the
// certificate it loaded until it gets SIGHUP, and renewatch is the real program
// with its embedded NATS server. Everything listens on loopback, lives in one
// temporary directory and is gone afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// The exit codes: 130 is what a shell reports for a program ended by Ctrl-C.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == serveArgument {
		return serve(args[1:], os.Stdin, stdout, stderr)
	}
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := options{}
	flags.StringVar(&o.binary, "renewatch", "", "use this renewatch `program` instead of building one")
	flags.BoolVar(&o.keep, "keep", false, "keep the temporary directory with the configuration, the journal and the logs")
	flags.DurationVar(&o.timeout, "timeout", 90*time.Second, "give up after this `time`, building not included")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "quickstart: error: unexpected argument %q\n", flags.Arg(0))
		return exitUsage
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := show(ctx, o, newStory(stdout))
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "\nquickstart: interrupted; everything is stopped and removed")
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "\nquickstart: error: %v\n", err)
	return exitFailed
}
