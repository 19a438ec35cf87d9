package systemd

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exposure is the worst `systemd-analyze security` may find, in tenths.
const exposure = "15"

const unitName = "renewatch.service"

// analyze runs systemd-analyze on a copy of the unit whose program exists, with
// the drop-ins given by name.
func analyze(t *testing.T, dropIns []string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("RENEWATCH_E2E") == "1" {
			t.Fatal("systemd-analyze is missing: install systemd")
		}
		t.Skip("systemd-analyze is missing: the unit file is not checked")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unit := read(t, unitName)
	if !strings.Contains(unit, "\nExecStart=/usr/bin/renewatch run\n") {
		t.Fatal("the unit does not start /usr/bin/renewatch run")
	}
	unit = strings.Replace(unit, "/usr/bin/renewatch", self, 1)
	write(t, filepath.Join(dir, unitName), unit)
	for _, name := range dropIns {
		write(t, filepath.Join(dir, unitName+".d", strings.TrimSuffix(name, ".example")), read(t, filepath.Join(unitName+".d", name)))
	}
	cmd := exec.CommandContext(t.Context(), program, append(args, filepath.Join(dir, unitName))...)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=notice", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func dropIns(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("..", "..", "systemd", unitName+".d"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		// A file that ends in .conf would be in force wherever the folder is copied.
		if e.Type() != fs.FileMode(0) || !strings.HasSuffix(e.Name(), ".conf.example") {
			t.Errorf("%s is no *.conf.example", e.Name())
			continue
		}
		names = append(names, e.Name())
	}
	if len(names) == 0 {
		t.Fatal("there are no drop-ins")
	}
	return names
}

func TestUnitFileIsClean(t *testing.T) {
	if out, err := analyze(t, nil, "verify"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for _, name := range dropIns(t) {
		t.Run(name, func(t *testing.T) {
			out, err := analyze(t, []string{name}, "verify")
			// Versions before 253 do not know the type that this one is for.
			if name == "notify-reload.conf.example" && strings.Contains(out, "Failed to parse service type") {
				t.Skip("this systemd is older than 253, which notify-reload needs")
			}
			if err != nil || strings.TrimSpace(out) != "" {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
		})
	}
}

func TestUnitFileSandbox(t *testing.T) {
	out, err := analyze(t, nil, "security", "--offline=true", "--no-pager", "--threshold="+exposure)
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	if !strings.Contains(out, "Overall exposure level for "+unitName) {
		t.Errorf("systemd-analyze said nothing of use:\n%s", out)
	}
}

// TestUnitFileSays holds the unit to what the program relies on and no tool checks.
func TestUnitFileSays(t *testing.T) {
	unit := read(t, unitName)
	for _, line := range []string{
		"Type=notify", "ExecReload=kill -HUP $MAINPID", "Restart=on-failure", "RestartPreventExitStatus=78",
		"StateDirectory=renewatch", "StateDirectoryMode=0700", "User=root", "PrivateUsers=yes",
		"CapabilityBoundingSet=", "ReadWritePaths=-/etc/letsencrypt", "SystemCallErrorNumber=EPERM",
	} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit does not say %s", line)
		}
	}
	if !strings.Contains(unit, "\nWatchdogSec=") {
		t.Error("the unit has no watchdog")
	}
}
