package discover

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// running finds the running server that pidfiles or units name, and how it was
// started. With kind "" any kind will do. The usual pidfiles of a kind are looked
// at when nothing else names a process and byHabit is set.
func (p *places) running(kind Kind, units, pidfiles []string, byHabit bool) (invocation, *Gap) {
	var pids []int
	for _, f := range pidfiles {
		if pid, ok := pidFrom(f); ok {
			pids = append(pids, pid)
		}
	}
	for _, unit := range units {
		pids = append(pids, p.unitProcesses(unit)...)
	}
	if len(pids) == 0 && byHabit && len(pidfiles) == 0 {
		for _, f := range p.pids[kind] {
			if pid, ok := pidFrom(f); ok {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		inv := p.process(pid)
		if inv.kind == "" || kind != "" && inv.kind != kind {
			continue
		}
		if p.elsewhere(pid) {
			return inv, &Gap{Path: p.of(pid, ""), Sentence: fmt.Sprintf(
				"%s (process %d) runs on another file system, in a container perhaps: its configuration is not read", inv.kind, pid),
				Hint: "run renewatch where the server runs"}
		}
		return inv, nil
	}
	return invocation{}, nil
}

func pidFrom(file string) (int, bool) {
	var data []byte
	for range gapSteps / 10 {
		var err error
		if data, err = readFile(file, 4096); err != nil {
			return 0, false
		}
		if len(data) > 0 {
			break
		}
		time.Sleep(gapStep)
	}
	head, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
	pid, err := strconv.Atoi(strings.TrimSpace(string(head)))
	return pid, err == nil && pid > 0
}

func (p *places) of(pid int, what string) string {
	return filepath.Join(p.proc, strconv.Itoa(pid), what)
}

// readProc reads up to limit bytes of a file the kernel makes up.
func readProc(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// A program that replaces itself, as HAProxy's master does at each start and
// reload, has no command line and no environment for some milliseconds, and its
// pidfile may be empty as long.
const (
	gapStep  = 4 * time.Millisecond
	gapSteps = 250
)

// steady reads what a process was started with, and waits while it replaces itself.
func (p *places) steady(pid int, what string, limit int64) (data []byte, err error) {
	for range gapSteps {
		if data, err = readProc(p.of(pid, what), limit); err != nil || len(data) > 0 {
			break
		}
		if st, err := p.stat(pid); err != nil || st.state == 'Z' {
			break
		}
		time.Sleep(gapStep)
	}
	return data, err
}

// unitProcesses are the processes of a unit, parents first, from its control group.
func (p *places) unitProcesses(unit string) []int {
	unit = path.Base(unit)
	if !strings.HasSuffix(unit, ".service") {
		unit += ".service"
	}
	slice := ""
	if template, _, ok := strings.Cut(unit, "@"); ok {
		slice = "system-" + strings.ReplaceAll(template, "-", `\x2d`) + ".slice"
	}
	for _, root := range p.cgroups {
		data, err := readProc(filepath.Join(root, slice, unit, "cgroup.procs"), 64<<10)
		if err != nil {
			continue
		}
		var pids []int
		for _, word := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		slices.Sort(pids)
		// Numbers wrap around: the parent need not have the lowest.
		var tops, rest []int
		for _, pid := range pids[:min(len(pids), 4096)] {
			st, err := p.stat(pid)
			if _, child := slices.BinarySearch(pids, st.parent); err == nil && !child {
				tops = append(tops, pid)
			} else {
				rest = append(rest, pid)
			}
		}
		return append(tops, rest...)
	}
	return nil
}

// maxCmdline is how much is read of a command line.
const maxCmdline = 64 << 10

// process finds out which server a process is and how it was started. The kind is
// empty where it is none, or may not be seen.
func (p *places) process(pid int) invocation {
	comm, err := readProc(p.of(pid, "comm"), 64)
	if err != nil {
		return invocation{}
	}
	kind := programs[strings.TrimSpace(string(comm))]
	if kind == "" {
		return invocation{}
	}
	inv := invocation{kind: kind, dir: "/", pid: pid}
	data, err := p.steady(pid, "cmdline", maxCmdline)
	if err != nil || len(data) == maxCmdline {
		return inv
	}
	args := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	if title, ok := strings.CutPrefix(args[0], "nginx: "); ok && kind == Nginx {
		// nginx overwrites its arguments with a title that repeats them.
		line, ok := strings.CutPrefix(title, "master process ")
		if !ok {
			return inv
		}
		args = strings.Fields(line)
	}
	if len(args) == 0 || programs[path.Base(args[0])] != kind {
		return inv
	}
	inv = flags(kind, args[0], args[1:])
	inv.exact, inv.pid = true, pid
	// Where it may be seen; haproxy -C has been obeyed by then.
	if cwd, err := os.Readlink(p.of(pid, "cwd")); err == nil && strings.HasPrefix(cwd, "/") {
		inv.dir = cwd
	}
	return inv
}

// elsewhere reports whether a process has another root directory than this one.
// Where that may not be seen, its control group tells of a container.
func (p *places) elsewhere(pid int) bool {
	theirs, err := os.Stat(p.of(pid, "root"))
	ours, err2 := os.Stat("/")
	if err == nil && err2 == nil {
		return !os.SameFile(theirs, ours)
	}
	group, err := readProc(p.of(pid, "cgroup"), 16<<10)
	if err != nil {
		return false
	}
	own, err := readProc(filepath.Join(p.proc, "self", "cgroup"), 16<<10)
	if err == nil && bytes.Equal(own, group) {
		return false
	}
	for _, word := range []string{"docker", "libpod", "kubepods", "containerd", "crio", "/lxc"} {
		if bytes.Contains(group, []byte(word)) {
			return true
		}
	}
	return false
}

// environment returns a look-up of the variables a server is started with: those
// of the running process where they may be read, else what the files of its
// package plainly assign.
func (p *places) environment(kind Kind, pid int) func(string) (string, bool) {
	if pid > 0 {
		if data, err := p.steady(pid, "environ", 1<<20); err == nil && len(data) > 0 {
			return func(name string) (string, bool) {
				for assigned := range strings.SplitSeq(string(data), "\x00") {
					if v, ok := strings.CutPrefix(assigned, name+"="); ok {
						return v, true
					}
				}
				return "", false
			}
		}
	}
	vars := map[string]string{}
	for _, file := range p.settings[kind] {
		if data, err := readFile(file, 1<<20); err == nil {
			maps.Copy(vars, assignments(string(data)))
		}
	}
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

// assignments reads NAME=value and export NAME=value where the value is plain and
// the line stands for itself: not indented, as inside an if, nothing to expand. A
// name that is given two values is not known.
func assignments(script string) map[string]string {
	vars := map[string]string{}
	unsure := map[string]bool{}
	for text := range strings.Lines(script) {
		text = strings.TrimRight(text, " \t\r\n")
		text = strings.TrimPrefix(text, "export ")
		name, v, ok := strings.Cut(text, "=")
		if !ok || name == "" || strings.ContainsFunc(name, func(c rune) bool {
			return c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
		}) {
			continue
		}
		if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
			v = v[1 : n-1]
		} else if strings.ContainsAny(v, " \t") {
			unsure[name] = true
		}
		if have, twice := vars[name]; strings.ContainsAny(v, "$`\\\"';&|()") || twice && have != v {
			unsure[name] = true
		}
		vars[name] = v
	}
	for name := range unsure {
		delete(vars, name)
	}
	return vars
}
