package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// jobFile is a job.json of mod_md with the entries, the newest first.
func jobFile(entries ...string) string {
	return fmt.Sprintf(`{
"name":"a.test","finished":false,"last":{"status":0},"log":{"entries":[%s]}}`, strings.Join(entries, ","))
}

func jobEntry(at time.Time, second int, kind, detail string) string {
	at = at.Add(time.Duration(second) * time.Second).UTC()
	return fmt.Sprintf(`{"when":%q,"type":%q,"detail":%q}`, at.Format("Mon, 02 Jan 2006 15:04:05 GMT"), kind, detail)
}

// TestFollowDocument: a document that is rewritten is read as a whole, and what
// has changed is told, once, across a restart too.
func TestFollowDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "job.json")
	rewrite := func(text string) {
		check(t, os.WriteFile(path+".tmp", []byte(text), 0o600))
		check(t, os.Rename(path+".tmp", path))
	}
	at := time.Now().Add(-time.Minute)
	begun := jobEntry(at, 1, "starting", "")
	failed := jobEntry(at, 5, "renewal-error", "the CA said no")
	again := jobEntry(at, 30, "starting", "")
	rewrite(jobFile(failed, begun))
	l := Log{Client: acmelog.ModMD, File: path}
	f := follow(t, LogOptions{Dir: dir}, nil, l)
	first := f.next()
	if first.Kind != Attempted || first.Attempt.Outcome != acmelog.Failed || !first.Old {
		t.Fatalf("heard %s", tellHeard(first))
	}
	rewrite(jobFile(failed, begun)[:80]) // half of it
	f.looked()
	rewrite(jobFile(again, failed, begun))
	run := f.next()
	if run.Kind != Attempted || run.Attempt.Outcome != acmelog.Running || run.Old || run.ID == first.ID {
		t.Fatalf("heard %s", tellHeard(run))
	}
	f.looked()
	f.stop()
	rewrite(jobFile(jobEntry(at, 40, "renewal-error", "the CA said no again"), again, failed, begun))
	f = follow(t, LogOptions{Dir: dir}, nil, l)
	if end := f.next(); end.Kind != Attempted || end.Attempt.Outcome != acmelog.Failed || end.ID != run.ID || end.Old {
		t.Fatalf("heard %s", tellHeard(end))
	}
	check(t, os.Remove(path))
	f.looked()
	rewrite(strings.Repeat(" ", maxSize+1))
	f.faults(Blind, TooLarge)
	rewrite(jobFile(jobEntry(at, 59, "starting", "")))
	f.faults(Sighted, TooLarge)
	if h := f.next(); h.Kind != Attempted || h.Attempt.Outcome != acmelog.Running {
		t.Fatalf("heard %s", tellHeard(h))
	}
}
