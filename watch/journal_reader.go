package watch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// firstEntries bounds what is read of the time before a unit was first
	// followed.
	firstEntries = 5000
	// maxEntry bounds one entry as journalctl prints it; longer ones are left out.
	// A line of 48 KiB with an escape sequence in it has 240 KB.
	maxEntry = 1 << 20
	// batch bounds how many entries are handed over at once.
	batchLines = 256
	batchBytes = 1 << 20
	// maxComplaint bounds what is read of journalctl's stderr.
	maxComplaint = 2 << 10
	// healthyAfter is for how long journalctl must run without a complaint for the
	// journal to be readable again.
	healthyAfter = 3 * time.Second
	// journalAgain and its double and so on are the pauses before journalctl is
	// run again, up to maxJournalAgain.
	journalAgain    = time.Second
	maxJournalAgain = time.Minute
	// killAfter is how long journalctl has to end.
	killAfter = 2 * time.Second
)

// entryFields are what is asked for: an entry may have fields of megabytes.
const entryFields = "MESSAGE,MESSAGE_ID,PRIORITY,SYSLOG_IDENTIFIER,UNIT,JOB_RESULT,JOB_TYPE,UNIT_RESULT,COMMAND,EXIT_CODE,EXIT_STATUS,INVOCATION_ID," +
	"_SYSTEMD_UNIT,_SYSTEMD_INVOCATION_ID,_PID,_UID,_COMM,_TRANSPORT,_STREAM_ID,_LINE_BREAK"

// journalReader runs journalctl for one unit.
type journalReader struct {
	u       *unit
	command []string
	unit    string
	to      chan<- *entries
	begun   bool      // what was before is read
	cursor  string    // of the last entry
	at      time.Time // of that
	seen    time.Time // when the unit was first followed
	sick    bool      // a fault was told

	mu        sync.Mutex
	complaint []byte
}

// run reads until ctx ends.
func (r *journalReader) run(ctx context.Context) {
	pause := journalAgain
	for ctx.Err() == nil {
		started, begun := time.Now(), r.begun
		heard, err := r.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard || time.Since(started) > maxJournalAgain {
			pause = journalAgain
		}
		if r.begun && !begun {
			continue // the past is read
		}
		if r.cursor != "" && r.complained("Failed to seek to cursor") {
			r.cursor = "" // it goes on after the time of that entry
			continue
		}
		if f := r.fault(err); f != nil {
			r.sick = true
			r.send(ctx, &entries{u: r.u, state: true, fault: f})
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		pause = min(2*pause, maxJournalAgain)
	}
}

func (r *journalReader) send(ctx context.Context, e *entries) {
	select {
	case r.to <- e:
	case <-ctx.Done():
	}
}

// arguments are those of journalctl.
func (r *journalReader) arguments() []string {
	// journalctl of systemd 247 and later knows all of them.
	args := append([]string{}, r.command[1:]...)
	args = append(args, "--no-pager", "--output=json", "--all", "--output-fields="+entryFields, "--unit="+r.unit)
	since := func(at time.Time) string { return fmt.Sprintf("--since=@%d.%06d", at.Unix(), at.Nanosecond()/1000) }
	switch {
	case !r.begun:
		until := fmt.Sprintf("--until=@%d.%06d", r.seen.Unix(), r.seen.Nanosecond()/1000)
		return append(args, fmt.Sprintf("--lines=%d", firstEntries), until)
	case r.cursor != "":
		// Without --no-tail only the last ten are told.
		return append(args, "--follow", "--no-tail", "--after-cursor="+r.cursor)
	case !r.at.IsZero():
		// Entries of that very moment may belong to what was read.
		return append(args, "--follow", "--no-tail", since(r.at.Add(time.Microsecond)))
	}
	return append(args, "--follow", "--no-tail", since(r.seen))
}

// once runs journalctl to its end. It reports whether there were entries.
func (r *journalReader) once(outer context.Context) (heard bool, err error) {
	r.mu.Lock()
	r.complaint = nil
	r.mu.Unlock()
	if err := r.missing(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.command[0], r.arguments()...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "SYSTEMD_URLIFY=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	cmd.Dir = "/"
	cmd.Stderr = &complaints{r, ctx}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	var well sync.WaitGroup
	if r.sick && r.begun {
		well.Add(1)
		t := time.AfterFunc(healthyAfter, func() {
			defer well.Done()
			if r.fault(nil) == nil {
				r.send(ctx, &entries{u: r.u, state: true})
			}
		})
		defer func() {
			cancel()
			if t.Stop() {
				well.Done()
			}
			well.Wait()
		}()
	}
	heard = r.read(ctx, bufio.NewReaderSize(out, 64<<10))
	err = cmd.Wait()
	if err == nil && !r.begun && r.fault(nil) == nil {
		r.begun = true
		r.send(ctx, &entries{u: r.u, begun: true, state: true})
	}
	return heard, err
}

// read hands over entries until journalctl ends.
func (r *journalReader) read(ctx context.Context, in *bufio.Reader) (heard bool) {
	e, size := &entries{u: r.u}, 0
	var line []byte
	long := false
	for {
		piece, err := in.ReadSlice('\n')
		if long = long || len(line)+len(piece) > maxEntry; long {
			line = nil
		} else {
			line = append(line, piece...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == nil {
			if len(line) > 1 && line[0] == '{' {
				if cursor, at := cursorOf(line); cursor != "" {
					r.cursor, r.at = cursor, at
				}
				heard = true
				e.lines = append(e.lines, line)
				size += len(line)
			}
			line, long = nil, false
		}
		if len(e.lines) > 0 && (err != nil || in.Buffered() == 0 || len(e.lines) >= batchLines || size >= batchBytes) {
			r.send(ctx, e)
			e, size = &entries{u: r.u}, 0
		}
		if err != nil {
			return heard
		}
	}
}

// complaints keeps the beginning of what journalctl says on stderr, and tells of
// a fault at once: with --follow it does not end of itself.
type complaints struct {
	r   *journalReader
	ctx context.Context
}

func (c *complaints) Write(b []byte) (int, error) {
	r := c.r
	r.mu.Lock()
	before := len(r.complaint)
	r.complaint = append(r.complaint, b[:min(len(b), maxComplaint-before)]...)
	more := len(r.complaint) > before
	r.mu.Unlock()
	if more {
		if f := r.fault(nil); f != nil {
			r.send(c.ctx, &entries{u: r.u, state: true, fault: f})
		}
	}
	return len(b), nil
}

// complained reports whether journalctl said so.
func (r *journalReader) complained(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.complaint, []byte(what))
}

// missing reports whether there is no journal at all; journalctl itself would
// wait for one without a word.
func (r *journalReader) missing() error {
	if len(r.command) != 1 || filepath.Base(r.command[0]) != "journalctl" {
		return nil
	}
	for _, dir := range [...]string{"/var/log/journal", "/run/log/journal"} {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
	}
	return errNoJournal
}

var errNoJournal = errors.New("neither /var/log/journal nor /run/log/journal is there")

// fault says why the journal is not readable; nil: as far as is known it is. err
// is how journalctl ended.
func (r *journalReader) fault(err error) *Fault {
	r.mu.Lock()
	complaint := bytes.TrimSpace(r.complaint)
	first, _, _ := strings.Cut(string(complaint), "\n")
	r.mu.Unlock()
	has := func(s string) bool { return bytes.Contains(complaint, []byte(s)) }
	switch {
	case has("insufficient permissions"), has("not seeing messages from other users"), has("Permission denied"):
		return newFault(NoPermission, "", "add this process to the group systemd-journal (SupplementaryGroups=systemd-journal)",
			"no permission to read the journal of %s", show(r.unit))
	case errors.Is(err, errNoJournal):
		return newFault(NoJournal, "", "name the client's log file instead, or mount the host's /var/log/journal and /run/log/journal read-only",
			"there is no journal to read the log of %s from: %s", show(r.unit), err)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return newFault(NoJournal, "", "install systemd's journalctl, or name the client's log file instead",
			"the journal of %s cannot be read: there is no program %s", show(r.unit), show(r.command[0]))
	case err != nil && first != "":
		return newFault(NoJournal, "", "try it: journalctl --unit="+r.unit, "the journal of %s cannot be read: %s", show(r.unit), show(first))
	case err != nil:
		return newFault(NoJournal, "", "try it: journalctl --unit="+r.unit, "the journal of %s cannot be read: journalctl ended: %s", show(r.unit), show(err.Error()))
	}
	return nil
}
