package watchdog

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// The child of TestKilledAtEveryBoundary is this test binary again, with these
// in its environment.
const (
	crashDir   = "RENEWATCH_TEST_CRASH_DIR"
	crashAt    = "RENEWATCH_TEST_CRASH_AT"
	crashWeb   = "RENEWATCH_TEST_CRASH_WEB"
	crashUntil = "RENEWATCH_TEST_CRASH_UNTIL"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		os.Exit(crashChild(dir))
	}
	os.Exit(m.Run())
}

// TestKilledAtEveryBoundary kills the keeper with SIGKILL before and after each
// thing it does (write the journal, probe, reload) while a renewal is under way,
// starts it again, and compares the story that the journal tells in the end.
func TestKilledAtEveryBoundary(t *testing.T) {
	if testing.Short() {
		t.Skip("starts some twenty processes; not in -short mode")
	}
	ca := certtest.NewCA(certtest.CAOptions{})
	// First without a kill: how many boundaries are there?
	total := crashRun(t, ca, 0)
	if total < 10 {
		t.Fatalf("only %d boundaries were passed", total)
	}
	for at := 1; at <= total; at++ {
		t.Run(fmt.Sprintf("%02d", at), func(t *testing.T) {
			t.Parallel()
			crashRun(t, ca, at)
		})
	}
}

// crashRun runs one renewal, with a kill at the given boundary (0: none), and
// returns how many boundaries the undisturbed child passed.
func crashRun(t *testing.T, ca *certtest.CA, at int) int {
	dir := t.TempDir()
	old := ca.Issue(certtest.LeafOptions{Names: []string{"www.example.org"}, NotBefore: time.Now().Add(-60 * 24 * time.Hour)})
	next := ca.Issue(certtest.LeafOptions{Names: []string{"www.example.org"}})
	cert, key := filepath.Join(dir, "www.crt"), filepath.Join(dir, "www.key")
	if err := certtest.WritePair(cert, key, old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{{Load: certtest.FromFiles(cert, key)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	var effective atomic.Int32 // reloads that changed what is served
	go func() {
		for {
			c, err := control.Accept()
			if err != nil {
				return
			}
			effective.Add(1)
			if err := srv.Reload(); err != nil {
				fmt.Fprintln(c, err)
			}
			c.Close()
		}
	}()

	run := func(at int, until string, count int) (killed bool, passed int) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashAt+"="+strconv.Itoa(at), crashUntil+"="+until+" "+strconv.Itoa(count),
			crashWeb+"="+srv.Addr().String()+" "+control.Addr().String())
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			return true, 0
		}
		if err != nil {
			state, _ := os.ReadFile(filepath.Join(dir, "state", "certificates", "www.json"))
			t.Fatalf("%v\n%s\nstate: %s", err, out.String(), state)
		}
		s := bufio.NewScanner(strings.NewReader(out.String()))
		for s.Scan() {
			if n, ok := strings.CutPrefix(s.Text(), "boundaries "); ok {
				passed, _ = strconv.Atoi(n)
			}
		}
		return false, passed
	}
	// The baseline, undisturbed; then the renewal, with the kill.
	run(0, "deploy.verified", 1)
	if err := certtest.WritePair(cert, key, next); err != nil {
		t.Fatal(err)
	}
	killed, passed := run(at, "deploy.verified", 2)
	if at > 0 && !killed {
		t.Skipf("boundary %d was not reached this time: the story took another course", at)
	}
	if killed {
		run(0, "deploy.verified", 2)
	}

	var story []string
	ids := map[string]bool{}
	last := 0
	for r, err := range notify.Events(filepath.Join(dir, "state", "journal"), notify.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if ids[r.Event.ID] {
			t.Errorf("the event %s stands twice in the journal", r.Event.Kind())
		}
		ids[r.Event.ID] = true
		n, _ := strconv.Atoi(r.Event.Sequence)
		if n != last+1 {
			t.Errorf("sequence %d after %d", n, last)
		}
		last = n
		if r.Event.Subject == "www" {
			story = append(story, string(r.Event.Kind()))
		}
	}
	told := strings.Join(story, " ")
	want := "deploy.verified renewal.detected reload.done deploy.verified"
	// A reload that the kill cut off is told as one whose end is unknown; where it
	// had its effect before, nothing else is reloaded.
	cut := "deploy.verified renewal.detected reload.failed deploy.verified"
	again := "deploy.verified renewal.detected reload.failed reload.done deploy.verified"
	switch told {
	case want, cut, again:
	default:
		t.Errorf("the journal tells: %s", told)
	}
	if n := effective.Load(); n != 1 {
		t.Errorf("the server was reloaded %d times for one renewal: %s", n, told)
	}
	if at == 0 && told != want {
		t.Errorf("undisturbed, the journal tells: %s", told)
	}
	return passed
}

// boundary counts what the child does and kills it at the chosen moment.
type boundary struct {
	at int64
	n  atomic.Int64
}

func (b *boundary) pass() {
	if b.n.Add(1) == b.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it does not come back
	}
}

type crashJournal struct {
	*notify.Journal
	b     *boundary
	until string
	left  int
	done  context.CancelFunc
}

func (j *crashJournal) Append(d ...notify.Draft) ([]notify.Event, error) {
	j.b.pass()
	events, err := j.Journal.Append(d...)
	j.b.pass()
	for _, e := range d {
		if string(e.Kind) == j.until {
			if j.left--; j.left <= 0 {
				j.done()
			}
		}
	}
	return events, err
}

type crashReloader struct {
	b       *boundary
	control string
}

func (r crashReloader) Run(_ context.Context, s reload.Server, _ reload.Step, _ []string) reload.Result {
	r.b.pass()
	c, err := net.Dial("tcp", r.control)
	if err != nil {
		return reload.Result{How: "command", Detail: err.Error()}
	}
	defer c.Close()
	if out, _ := io.ReadAll(c); len(out) > 0 {
		return reload.Result{How: "command", Detail: string(out)}
	}
	r.b.pass()
	zero := 0
	return reload.Result{OK: true, How: "command", ExitCode: &zero}
}

type crashProber struct {
	verify.Prober
	b *boundary
}

func (p *crashProber) Confirm(ctx context.Context, t verify.Target, w verify.Window) []verify.Verdict {
	p.b.pass()
	v := p.Prober.Confirm(ctx, t, w)
	p.b.pass()
	return v
}

func crashChild(dir string) int {
	at, _ := strconv.ParseInt(os.Getenv(crashAt), 10, 64)
	web, control, _ := strings.Cut(os.Getenv(crashWeb), " ")
	until, count, _ := strings.Cut(os.Getenv(crashUntil), " ")
	want, _ := strconv.Atoi(count)
	state := filepath.Join(dir, "state")
	// How often the awaited event stands there already does not count.
	for r, err := range notify.Events(filepath.Join(state, "journal"), notify.Filter{}) {
		if err == nil && string(r.Event.Kind()) == until {
			want--
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if want <= 0 {
		fmt.Println("boundaries 0")
		return 0
	}
	journal, err := notify.OpenJournal(filepath.Join(state, "journal"), notify.JournalOptions{Host: "h", Instance: "i"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer journal.Close()
	roots, err := verify.LoadRoots(filepath.Join(dir, "ca.pem"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	addr := netip.MustParseAddrPort(web)
	endpoint, err := verify.ParseEndpoint(fmt.Sprintf("https://www.example.org:%d?address=127.0.0.1", addr.Port()))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	b := &boundary{at: at}
	done, stop := context.WithCancel(ctx)
	defer stop()
	k, err := New(Options{
		StateDir: state, Host: "h", Instance: "i", Version: "test",
		Journal: &crashJournal{journal, b, until, want, stop},
		Watcher: watch.New(watch.Options{Settle: 100 * time.Millisecond}), Prober: &crashProber{b: b}, Reloader: crashReloader{b, control},
		Limits: reload.Limits{Apart: 10 * time.Millisecond}, Log: zerolog.New(os.Stdout).With().Timestamp().Logger(),
	}, Setup{
		Servers: map[string]reload.Server{"web": {Name: "web", Way: reload.Way{Command: []string{"reloadweb"}}}},
		Certificates: []Certificate{{
			Source: watch.Source{Name: "www", Cert: filepath.Join(dir, "www.crt")}, Server: "web", Roots: Roots{Pool: roots},
			Policy: Policy{Repair: true, Grace: 300 * time.Millisecond, Deadline: time.Minute, Retries: []time.Duration{0, time.Second, 2 * time.Second},
				Every: time.Hour, Samples: 3, Spread: 100 * time.Millisecond},
			Endpoints: []Endpoint{{URL: endpoint, Required: true}},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := k.Run(done); err != nil {
		fmt.Println(err)
		return 1
	}
	if ctx.Err() != nil {
		fmt.Println("nothing more happened within a minute")
		return 1
	}
	fmt.Printf("boundaries %d\n", b.n.Load())
	return 0
}
