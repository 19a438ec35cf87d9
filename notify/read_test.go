package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFollowSeesWhatAnotherWrites(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "journal"), &clock{now: noon}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	got := make(chan int)
	go func() {
		defer close(got)
		for r, err := range Follow(ctx, dir, Filter{}) {
			if err != nil {
				t.Error(err)
				return
			}
			var n int
			fmt.Sscanf(r.Event.Data.Detail, "number %d", &n)
			got <- n
		}
	}()
	expect := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			if n, ok := <-got; !ok || n != i {
				t.Fatalf("got %d (%v), want %d", n, ok, i)
			}
		}
	}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 2)
	expect(1, 2)
	// Half a line is not yet a line.
	path := j.segs[0].path(dir)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(`{"specversion":"1.0","id":"half`); err != nil {
		t.Fatal(err)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 2)) {
		t.Errorf("with half a line: %v", got)
	}
	if err := j.reopen(); err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, 3, 4)
	expect(3, 4)
	c.add(48 * time.Hour) // a new file
	appendAll(t, j, 5, 6)
	expect(5, 6)
	cancel()
	for range got {
		t.Error("more than was written")
	}
}

func TestEventsFilters(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 3)
	other := nth(4)
	other.Certificate = "other"
	if _, err := j.Append(other); err != nil {
		t.Fatal(err)
	}
	if got := details(t, dir, Filter{Certificate: "other"}); !slices.Equal(got, []int{4}) {
		t.Errorf("of other: %v", got)
	}
	if got := details(t, dir, Filter{After: 2}); !slices.Equal(got, []int{3, 4}) {
		t.Errorf("behind 2: %v", got)
	}
	for range Events(dir, Filter{}) {
		break // leaving early is no trouble
	}
	for r, err := range Events(filepath.Join(dir, "none"), Filter{}) {
		if !errors.Is(err, ErrNoJournal) {
			t.Errorf("%v %v", r, err)
		}
	}
	// The line is what stands in the file, whatever it holds.
	if err := os.WriteFile(filepath.Join(dir, segmentName(5)),
		[]byte(`{"specversion":"1.0","id":"x","type":"io.renewatch.new.one.v1","sequence":"5","time":"2026-06-01T12:00:00Z","data":{"later":true}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for r, err := range Events(dir, Filter{After: 4}) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, r.Line)
	}
	if len(lines) != 1 || !strings.Contains(string(lines[0]), `"later":true`) || !json.Valid(lines[0]) {
		t.Errorf("%s", lines)
	}
}

func TestRefusedEventsAreKeptBounded(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, options(&clock{now: noon}))
	line := []byte(`{"x":"` + strings.Repeat("y", 600<<10) + `"}`)
	for i := range 2 * (maxRefusedFiles + 1) {
		if err := j.refuse(record{seq: uint64(i + 1), line: line}, Refused{Reason: "r", Subject: "s"}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "refused", "*.jsonl"))
	if err != nil || len(files) != maxRefusedFiles {
		t.Errorf("%q %v", files, err)
	}
}
