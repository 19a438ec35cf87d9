package main

import (
	"slices"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/systemd"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
)

func TestRunsEnded(t *testing.T) {
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	state := func(active, id, result string, status int) systemd.StateChange {
		s := systemd.UnitState{ActiveState: active, InvocationID: id, Result: result, ExecMainCode: 1, ExecMainStatus: status}
		if active != "activating" {
			s.Ended = at
		}
		return systemd.StateChange{Unit: "certbot.service", State: s}
	}
	for _, c := range []struct {
		what    string
		changes []systemd.StateChange
		want    []int
	}{
		{"what had ended before is no news", []systemd.StateChange{state("inactive", "a", "success", 0)}, nil},
		{"a run that is seen", []systemd.StateChange{state("inactive", "a", "success", 0), state("activating", "b", "success", 0), state("inactive", "b", "success", 0)}, []int{0}},
		{"a run too short to be seen", []systemd.StateChange{state("inactive", "a", "success", 0), state("failed", "b", "exit-code", 3)}, []int{3}},
		{"the same end told twice", []systemd.StateChange{state("activating", "b", "success", 0), state("failed", "b", "exit-code", 1), state("failed", "b", "exit-code", 1)}, []int{1}},
		{"systemd away in between", []systemd.StateChange{state("activating", "b", "success", 0), {Unit: "certbot.service", Err: &systemd.Error{}}, state("inactive", "b", "success", 0)}, []int{0}},
		{"killed", []systemd.StateChange{state("activating", "b", "success", 0), state("failed", "b", "signal", 0)}, []int{1}},
	} {
		r := runs{}
		var got []int
		for _, x := range c.changes {
			if e, ended := r.ended(x); ended {
				got = append(got, e.Code)
				if !e.At.Equal(at) {
					t.Errorf("%s: ended at %v", c.what, e.At)
				}
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestExpected(t *testing.T) {
	for text, want := range map[string]watchdog.Expected{
		"": {}, "auto": {}, "manual": {Manual: true}, "0.66": {Fraction: 0.66}, "30d": {Before: 30 * 24 * time.Hour},
	} {
		if got := expected(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestClientLogs(t *testing.T) {
	usual := []watch.Log{{Client: acmelog.Certbot, File: "/var/log/letsencrypt/letsencrypt.log"}}
	for _, c := range []struct {
		what string
		conf config.Certificate
		want []watch.Log
	}{
		{"certbot's own place", config.Certificate{Cert: "/etc/letsencrypt/live/a/fullchain.pem"}, usual},
		{"none is wanted", config.Certificate{Cert: "/etc/letsencrypt/live/a/fullchain.pem", Logs: []config.ClientLog{}}, nil},
		{"elsewhere", config.Certificate{Cert: "/etc/ssl/a.pem"}, nil},
		{"configured", config.Certificate{Cert: "/etc/ssl/a.pem", Logs: []config.ClientLog{{Client: "lego", Unit: "lego.service"}}}, []watch.Log{{Client: acmelog.Lego, Unit: "lego.service"}}},
	} {
		if got := clientLogs(c.conf); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
