package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/natsd"
	"github.com/renewatch/renewatch/internal/status"
	"github.com/renewatch/renewatch/notify"
)

// senderOptions says where events go, without the server.
func senderOptions(c config.NATS) notify.SenderOptions {
	return notify.SenderOptions{
		URLs:  c.URLs,
		Creds: c.Creds, NKey: c.NKey, Token: c.Token, TokenFile: c.TokenFile, User: c.User, Password: c.Password, PasswordFile: c.PasswordFile,
		TLS:    notify.TLSOptions{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, First: c.TLS.First},
		Prefix: c.Prefix, Mode: notify.Mode(c.Mode), Stream: c.Stream, EnsureStream: c.EnsureStream,
	}
}

// usesNATS reports whether events go anywhere at all.
func usesNATS(c config.NATS) bool { return external(c) || c.UsesEmbedded() }

// external reports whether events go to a server that somebody else runs.
func external(c config.NATS) bool { return c.Enabled && len(c.URLs) > 0 }

// checkNATS finds out at the start what is wrong with the options.
func checkNATS(cfg *config.Config) error {
	if !external(cfg.NATS) {
		return nil
	}
	err := senderOptions(cfg.NATS).Check()
	var bad *notify.OptionError
	if errors.As(err, &bad) {
		return failed(exitConfig, bad.Hint(), "%v", bad)
	}
	if err != nil {
		return failed(exitConfig, "see nats: in the configuration", "nats: %v", err)
	}
	return nil
}

// serveNATS runs the sender, and the embedded server where none is named. A new
// configuration of an external server makes a new sender.
func (d *daemon) serveNATS(ctx context.Context, cfg *config.Config, told func()) {
	if urls := cfg.NATS.URLs; len(urls) > 0 {
		d.reached(func(r *status.Run) { r.NATS = strings.Join(urls, ",") })
		told()
		for c := cfg.NATS; ctx.Err() == nil; {
			one, stop := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() { d.send(one, senderOptions(c)); close(done) }()
			select {
			case c = <-d.natsChanged:
				d.reached(func(r *status.Run) { r.NATS = strings.Join(c.URLs, ",") })
			case <-ctx.Done():
			}
			stop()
			<-done
		}
		return
	}
	o := senderOptions(cfg.NATS)
	e := cfg.NATS.Embedded
	var srv *natsd.Server
	if !d.retry(ctx, "nats-port", told, func() (err error) {
		srv, err = natsd.Start(natsd.Options{Listen: e.Listen, StoreDir: filepath.Join(cfg.StateDir, "nats"), MaxStore: e.MaxStore,
			Prefix: o.Prefix, Stream: o.Stream, Log: d.natsLog})
		switch {
		case err == nil:
			d.reached(func(r *status.Run) { r.NATS = srv.URL() })
		case errors.Is(err, natsd.ErrPortTaken):
			err = &failure{sentence: err.Error(), hint: "set nats.embedded.listen to another port; if the server there is yours, name it with nats.url"}
		}
		return err
	}) {
		return
	}
	defer srv.Shutdown()
	o.InProcess = srv
	o.Creds, o.NKey, o.Token, o.TokenFile, o.PasswordFile, o.TLS = "", "", "", "", "", notify.TLSOptions{}
	o.User, o.Password = srv.Credentials()
	o.Inbox = natsd.SenderInbox
	d.send(ctx, o)
}

// send runs one sender until ctx ends.
func (d *daemon) send(ctx context.Context, o notify.SenderOptions) {
	o.Journal = d.journal
	o.OnRefused = func(r notify.Refused) {
		go d.keeper.Raise("nats-refused", fmt.Sprintf("NATS refused %s for ever: %s", r.Kind, r.Reason), "it is kept in the journal's directory refused")
	}
	s, err := notify.NewSender(o)
	if err != nil {
		d.keeper.Raise("nats", err.Error(), "")
		<-ctx.Done()
		return
	}
	d.sender.Store(s)
	if err := s.Run(ctx); err != nil && ctx.Err() == nil {
		d.keeper.Raise("nats", err.Error(), "")
	}
}

func (d *daemon) natsLog(level, sentence string) {
	if strings.Contains(sentence, "cid:") {
		level = "debug" // what one client did wrong is told to that client
	}
	switch level {
	case "error":
		d.log.Error().Str("room", "nats").Msg(sentence)
	case "warn":
		d.log.Warn().Str("room", "nats").Msg(sentence)
	default:
		d.log.Debug().Str("room", "nats").Msg(sentence)
	}
}

// How often the sender is looked at, and how long events may wait before that is
// a trouble.
const (
	mindEvery = 10 * time.Second
	mayWait   = 5 * time.Minute
	mayRefuse = 15 * time.Second // and when the server is there and does not take them
	// rootsEvery is how often the trusted roots are read again: a distribution's
	// update of them must not need a restart.
	rootsEvery = time.Hour
)

// mind watches what nobody else does: whether events get out, and what the
// journal has to report.
func (d *daemon) mind(ctx context.Context) {
	tick := time.NewTicker(mindEvery)
	defer tick.Stop()
	refused, lastError, rootsAt := 0, "", time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.mindSilences()
		d.memory.look()
		if time.Since(rootsAt) > rootsEvery {
			rootsAt = time.Now()
			d.refreshRoots(ctx)
		}
		if r := d.journal.TakeReport(); !r.Empty() {
			d.log.Warn().Interface("report", r).Msg("the journal reports")
			if r.DroppedStory+r.DroppedAlerts > 0 || r.Vanished || r.Replaced || r.Err != nil {
				d.keeper.Raise("journal", journalTrouble(r), "is NATS away for long, or the disk full? see journal.max_size")
			}
		} else {
			d.keeper.Clear("journal")
		}
		s := d.sender.Load()
		if s == nil {
			continue
		}
		st := s.Status()
		if st.LastError != lastError {
			if lastError = st.LastError; lastError != "" {
				d.log.Warn().Str("room", "nats").Int("waiting", st.Depth).Msg("events are not delivered: " + lastError)
			}
		}
		may := mayWait
		if refusal(st) {
			may = mayRefuse
		}
		if st.Depth > 0 && time.Since(st.OldestUnsent) > may {
			why := st.LastError
			if why == "" {
				why = "no answer"
			}
			d.keeper.Raise("nats", "events wait for NATS: "+why, "is the server reachable, are the credentials and the stream right? nothing is lost meanwhile")
		} else if st.Depth == 0 {
			d.keeper.Clear("nats")
		}
		if st.Refused == refused && st.Depth == 0 {
			d.keeper.Clear("nats-refused")
		}
		refused = st.Refused
	}
}

// refusal reports whether a server answers and does not take our events, as
// opposed to none answering.
func refusal(s notify.Status) bool {
	if s.LastError == "" {
		return false
	}
	if s.Connected {
		return true
	}
	for _, word := range []string{"uthoriz", "uthentic", "credential", "ermission", "ccount"} {
		if strings.Contains(s.LastError, word) {
			return true
		}
	}
	return false
}

func journalTrouble(r notify.Report) string {
	switch {
	case r.DroppedStory+r.DroppedAlerts > 0:
		return fmt.Sprintf("the journal reached its size: %d events and %d alerts that were not sent yet were deleted", r.DroppedStory, r.DroppedAlerts)
	case r.Replaced:
		return "somebody moved or replaced the journal's file while it was written; it was put back"
	case r.Vanished:
		return "somebody deleted the journal's file while it was written"
	}
	return "the journal has trouble: " + r.Err.Error()
}
