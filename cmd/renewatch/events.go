package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/notify"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var since string
	cmd := &cobra.Command{
		Use:   "events [NAME]",
		Short: "print what happened, from the journal",
		Example: `  renewatch events --since 24h
  renewatch events --follow www.example.org
  renewatch events --json | jq .`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return failed(exitUsage, "name one certificate, or none for all", "events takes one name, and %d were given", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var f notify.Filter
			if len(args) == 1 {
				f.Certificate = args[0]
			}
			if since != "" {
				d, err := config.ParseDuration(since)
				if err != nil {
					return failed(exitUsage, "write --since 24h, 30m or 7d", "--since %s: %v", since, err)
				}
				f.Since = time.Now().Add(-d)
			}
			return a.events(f, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing what happens")
	cmd.Flags().StringVar(&since, "since", "", "only what is not older, such as 24h or 7d")
	return cmd
}

func (a *app) events(f notify.Filter, follow bool) error {
	state, err := a.stateDirectory()
	if err != nil {
		return err
	}
	dir := filepath.Join(state, "journal")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var records iter.Seq2[notify.Record, error]
	if follow {
		records = notify.Follow(ctx, dir, f)
	} else {
		records = notify.Events(dir, f)
	}
	p := a.painter(a.stdout)
	for r, err := range records {
		switch {
		case errors.Is(err, notify.ErrNoJournal):
			return failed(exitFailed, "has the daemon run with this state directory? see --state-dir and --config", "there is no journal in %s", dir)
		case err != nil:
			return failed(exitFailed, "run it as the user the daemon runs as", "the journal cannot be read: %v", err)
		}
		if a.json {
			_, err = a.stdout.Write(append(r.Line, '\n'))
		} else {
			err = printEvent(a.stdout, p, r.Event)
		}
		if errors.Is(err, syscall.EPIPE) {
			return nil
		}
		if err != nil {
			return failed(exitFailed, "", "cannot write: %v", err)
		}
	}
	return nil
}

// printEvent prints one event on one line.
func printEvent(w io.Writer, p painter, e notify.Event) error {
	d := e.Data
	subject := e.Subject
	if subject == notify.AgentCertificate {
		subject = "renewatch"
	}
	var more []string
	if d.Cause != "" {
		more = append(more, "cause "+d.Cause)
	}
	if d.Reload != nil && d.Reload.Server != "" {
		s := d.Reload.Server
		if d.Reload.How != "" {
			s += " by " + d.Reload.How
		}
		if d.Reload.ExitCode != nil {
			s += fmt.Sprintf(", exit %d", *d.Reload.ExitCode)
		}
		more = append(more, s)
	}
	if d.LagSeconds != nil {
		more = append(more, fmt.Sprintf("%.1f s after the files changed", *d.LagSeconds))
	}
	text := d.Detail
	if len(more) > 0 {
		text += " (" + strings.Join(more, "; ") + ")"
	}
	_, err := fmt.Fprintf(w, "%s  %s  %-24s  %-18s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05"), p.severity(d.Severity, 8), subject, e.Kind(), strings.TrimSpace(text))
	return err
}
