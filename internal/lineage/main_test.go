package lineage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// inside names the function that a child process runs instead of the tests.
const inside = "RENEWATCH_TEST_INSIDE"

// children are run in a process of their own: as another user, in namespaces of
// their own. Each prints its answer as JSON.
var children = map[string]func(args []string) (any, error){
	"run":      childRun,
	"bound":    childBound,
	"overlay":  childOverlay,
	"pieces":   childPieces,
	"pids":     childPIDs,
	"hidepids": childHidden,
}

func TestMain(m *testing.M) {
	name := os.Getenv(inside)
	if name == "" {
		os.Exit(m.Run())
	}
	answer, err := children[name](os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child runs one of the children and decodes its answer.
func child[T any](t *testing.T, name string, flags uintptr, args ...string) T {
	t.Helper()
	var answer T
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user or make namespaces")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("no namespaces here: %v", err)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%s answered %q: %v", name, out, err)
	}
	return answer
}

// private keeps mounts of this namespace to itself.
func private() error {
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
}

// nobody gives up root.
func nobody() error {
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
}

// childRun answers for certificates as nobody.
func childRun(paths []string) (any, error) {
	if err := nobody(); err != nil {
		return nil, err
	}
	return runsOf(paths), nil
}

// childPIDs answers from a PID namespace of its own: first as root, then as nobody.
func childPIDs(paths []string) (any, error) {
	if err := errors.Join(private(), syscall.Mount("proc", "/proc", "proc", 0, "")); err != nil {
		return nil, err
	}
	all := runsOf(paths)
	if err := nobody(); err != nil {
		return nil, err
	}
	return append(all, runsOf(paths)...), nil
}

// childHidden answers as nobody where /proc shows processes only, as
// ProcSubset=pid makes it.
func childHidden(paths []string) (any, error) {
	if err := errors.Join(private(), syscall.Mount("proc", "/proc", "proc", 0, "subset=pid"), nobody()); err != nil {
		return nil, err
	}
	return runsOf(paths), nil
}

func runsOf(paths []string) []Run {
	var all []Run
	for _, path := range paths {
		all = append(all, NewRuns(Options{}).Of(context.Background(), path))
	}
	return all
}
