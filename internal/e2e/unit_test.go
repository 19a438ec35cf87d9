package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// systemd takes the unit as it is shipped without a word of complaint, and finds
// little exposed.
func TestUnitFile(t *testing.T) {
	t.Parallel()
	analyze := program(t, "systemd-analyze")
	shipped := readFile(t, filepath.Join(repoRoot(t), "systemd", "renewatch.service"))
	// The program is not installed here: its path is the one thing exchanged.
	start := regexp.MustCompile(`(?m)^(ExecStart=)\S*renewatch\b`)
	if !start.MatchString(shipped) {
		t.Fatal("the unit starts no renewatch")
	}
	unit := filepath.Join(tempDir(t), "renewatch.service")
	writeFile(t, unit, start.ReplaceAllString(shipped, "${1}"+binary(t)), 0o644)

	res := run(t, exec.Command(analyze, "verify", "--man=no", unit))
	if res.code != 0 || strings.Contains(res.stderr, "renewatch.service") {
		t.Errorf("systemd-analyze verify: %v", res)
	}
	res = run(t, exec.Command(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit))
	if res.code != 0 {
		t.Errorf("systemd-analyze security: %v", res)
	}
}
