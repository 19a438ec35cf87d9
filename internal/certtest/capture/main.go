// Command capture runs real ACME clients against a CA that fails to order, and
// keeps what they print as samples for the tests of watch/acmelog.
//
//	go run ./internal/certtest/capture [-again] [-out DIR] [-replace OLD=NEW] [-cases GLOB] [CLIENT[@VERSION][=PATH]...]
//
// Without arguments every client that is found on PATH is run; CLIENT=PATH runs
// that program instead, so that several versions of one client can be captured:
//
//	go run ./internal/certtest/capture -out /tmp/samples certbot lego=/opt/lego-5/lego lego@4.9.1=/usr/bin/lego
//
// CLIENT@VERSION=PATH is for programs that do not tell their version.
//
// Everything happens on loopback: pebble in this process issues, a proxy before it
// answers for the CA where the name that is asked for says so (limited.test is over
// its rate limit, caa.test is refused by CAA; see faults.go), and a web server
// answers http-01 for all clients, wrongly where the name says so. Each case ends
// as DIR/CLIENT/CASE_VERSION.log (the client's log file, or stdout and stderr
// together where it has none) and CASE_VERSION_out.log (what the journal would
// have got, where a log file exists too). Paths of the laboratory become /srv/lab;
// times, ports and everything else stay as they were printed. The name of a
// sample ends in _any where nothing in it tells whose it is.
//
// The capture knows what really happened. It reads each sample with watch/acmelog
// at once and prints where that understood something else; the exit status is then
// 1. With -again it reads the samples that are there. Clients that are missing are
// named at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// client is one that can be run.
type client struct {
	name     string // as watch/acmelog and its testdata call it
	programs []string
	run      func(ctx context.Context, l *lab, bin string) error
}

var clients = []client{
	{"certbot", []string{"certbot"}, certbot},
	{"lego", []string{"lego"}, lego},
	{"dehydrated", []string{"dehydrated"}, dehydrated},
	{"uacme", []string{"uacme"}, uacme},
	{"acme-tiny", []string{"acme-tiny"}, acmeTiny},
	{"getssl", []string{"getssl"}, getssl},
	{"acme.sh", []string{"acme.sh"}, acmeSh},
	{"caddy", []string{"caddy"}, caddy},
	{"mod_md", []string{"apache2", "httpd"}, modMD},
}

func main() { os.Exit(capture()) }

func capture() int {
	out := flag.String("out", filepath.FromSlash("watch/acmelog/testdata"), "directory for the samples")
	cases := flag.String("cases", "*", "only cases whose name matches this `pattern`")
	again := flag.Bool("again", false, "run no client: compare the samples that are in the directory already, of every version")
	var replace []string
	flag.Func("replace", "write NEW for every `OLD=NEW` in the samples (repeatable): paths at which a client is installed", func(s string) error {
		old, new, ok := strings.Cut(s, "=")
		if !ok || old == "" {
			return errors.New("want OLD=NEW")
		}
		replace = append(replace, old, new)
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := filepath.Match(*cases, ""); err != nil {
		return complain("-cases", err)
	}
	var jobs []job
	var missing []client
	var err error
	if *again {
		jobs, err = present(*out, flag.Args())
	} else {
		jobs, missing, err = find(flag.Args())
	}
	if err != nil {
		return complain("clients", err)
	}
	wrong, failed := 0, false
	for _, j := range jobs {
		l, err := newLab(*out, *cases, j.client.name, replace)
		if err != nil {
			return complain("laboratory", err)
		}
		l.version, l.again = j.version, *again
		err = j.client.run(ctx, l, j.bin)
		l.close()
		wrong += l.wrong
		switch {
		case ctx.Err() != nil:
			return complain(j.client.name, ctx.Err())
		case err != nil:
			failed = true
			complain(j.client.name+" "+j.bin, err)
		}
	}
	for _, m := range missing {
		fmt.Printf("skipped %s: there is no %s\n", m.name, strings.Join(m.programs, " or "))
	}
	if wrong > 0 {
		fmt.Printf("%d samples are understood wrongly\n", wrong)
	}
	if wrong > 0 || failed {
		return 1
	}
	return 0
}

func complain(what string, err error) int {
	fmt.Fprintf(os.Stderr, "capture: error: %s: %s\n", what, err)
	return 1
}

// present lists the clients and versions of which there are samples.
func present(dir string, names []string) (jobs []job, err error) {
	for _, c := range clients {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(dir, c.name, "*_*.log"))
		if err != nil {
			return nil, err
		}
		var versions []string
		for _, f := range files {
			v := sampleVersion.FindStringSubmatch(filepath.Base(f))
			if v != nil && !slices.Contains(versions, v[1]) {
				versions = append(versions, v[1])
				jobs = append(jobs, job{client: c, version: v[1]})
			}
		}
	}
	return jobs, nil
}

var sampleVersion = regexp.MustCompile(`_([0-9]+\.[0-9]+\.?[0-9]*)(?:_out)?(?:_any)?\.log$`)

type job struct {
	client  client
	bin     string
	version string // when it was given
}

// find says which clients are to be run, and which are not there.
func find(args []string) (jobs []job, missing []client, err error) {
	if len(args) == 0 {
		for _, c := range clients {
			args = append(args, c.name)
		}
	}
	for _, arg := range args {
		name, path, given := strings.Cut(arg, "=")
		name, version, _ := strings.Cut(name, "@")
		i := slices.IndexFunc(clients, func(c client) bool { return c.name == name })
		if i < 0 {
			return nil, nil, fmt.Errorf("there is no client %q", name)
		}
		c := clients[i]
		if given {
			bin, err := filepath.Abs(path)
			if err == nil {
				_, err = exec.LookPath(bin)
			}
			if err != nil {
				return nil, nil, err
			}
			jobs = append(jobs, job{c, bin, version})
			continue
		}
		bin := ""
		for _, p := range c.programs {
			if bin == "" {
				bin, _ = exec.LookPath(p)
			}
		}
		if bin == "" {
			missing = append(missing, c)
			continue
		}
		jobs = append(jobs, job{c, bin, version})
	}
	return jobs, missing, nil
}
