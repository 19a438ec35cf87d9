package main

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/internal/silence"
)

func TestSilenceTable(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	var b bytes.Buffer
	a := &app{stdout: &b}
	a.silenceTable(painter{terminal: true, width: 60}, []silence.Silence{
		{ID: "3fa9c1d0", Certificate: "www.example.org", Since: now, Until: now.Add(2*time.Hour - time.Second), Reason: "new load balancer, and more words than go on one line here", By: "alice"},
		{ID: "b", All: true, Since: now, Until: now.Add(50 * time.Hour), Reason: "x", Force: true},
	}, now)
	zone := now.Add(50 * time.Hour).Format("-07:00")
	want := "ID        WHAT             UNTIL                       LEFT       BY     FORCE\n" +
		"3fa9c1d0  www.example.org  2026-11-22 13:59:59 " + zone + "  2h left    alice  -\n" +
		"          new load balancer, and more words than go on one\n" +
		"          line here\n" +
		"b         everything       2026-11-24 14:00:00 " + zone + "  2d2h left  -      force\n" +
		"          x\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	b.Reset()
	a.silenceTable(painter{terminal: true}, nil, now)
	if b.String() != "nothing is silenced\n" {
		t.Errorf("%q", b.String())
	}
}

func TestLasting(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1s", 30 * time.Second: "30s", 90 * time.Second: "1m30s", 2*time.Hour - time.Second: "2h", 150 * time.Minute: "2h30m",
		49*time.Hour + 29*time.Minute: "2d1h", 366 * 24 * time.Hour: "366d",
	} {
		if got := lasting(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
		if back, err := config.ParseDuration(want); err != nil || back <= 0 {
			t.Errorf("%s is no duration: %v", want, err)
		}
	}
}

func TestWindows(t *testing.T) {
	if windows(config.Server{}) != nil {
		t.Error("no windows are some")
	}
	w := config.Window{Days: []time.Weekday{time.Monday}, From: 2 * time.Hour, To: 5 * time.Hour, Zone: time.UTC}
	want := reload.Windows{{Days: w.Days, From: w.From, To: w.To, Zone: w.Zone}}
	if got := windows(config.Server{Windows: []config.Window{w}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if from, to := reflect.TypeFor[config.Window]().NumField(), reflect.TypeFor[reload.Window]().NumField(); from != to {
		t.Errorf("%d of %d fields", to, from)
	}
}
