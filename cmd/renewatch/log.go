package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/rs/zerolog/journald"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/systemd"
)

// logger returns the log the configuration asks for, on stderr.
func (a *app) logger(c config.Log) zerolog.Logger {
	format := c.Format
	p := a.painter(a.stderr)
	if format == "auto" || format == "" {
		switch {
		case p.terminal:
			format = "console"
		case systemd.StderrIsJournal():
			format = "journal"
		default:
			format = "json"
		}
	}
	var w io.Writer = a.stderr
	switch format {
	case "console":
		w = zerolog.ConsoleWriter{Out: a.stderr, NoColor: !p.colour, TimeFormat: time.TimeOnly}
	case "journal":
		if _, err := os.Stat(journalSocket); err == nil {
			w = journald.NewJournalDWriter()
		} // else nobody would ever see a line
	}
	setLevel(c.Level)
	log := zerolog.New(w).With().Timestamp()
	if format == "journal" {
		log = log.Str("syslog_identifier", "renewatch") // what journalctl -t looks for
	}
	return log.Logger()
}

// journalSocket is where journald listens.
const journalSocket = "/run/systemd/journal/socket"

// setLevel changes the level of every logger, also of those made before.
func setLevel(name string) {
	level, err := zerolog.ParseLevel(name)
	if err != nil {
		level = zerolog.InfoLevel
	}
	zerolog.SetGlobalLevel(level)
}
