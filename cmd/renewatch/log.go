package main

import (
	"io"
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
		w = journald.NewJournalDWriter()
	}
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}
