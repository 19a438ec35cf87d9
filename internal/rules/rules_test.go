package rules

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/renewatch/renewatch"

// owners names the one room that may import a third-party package.
var owners = []struct {
	prefix string
	rooms  []string
	why    string
}{
	{"github.com/fsnotify/fsnotify", []string{"watch"}, "file system events are the business of watch"},
	{"github.com/nats-io/nats.go", []string{"notify"}, "only notify speaks to NATS"},
	{"github.com/nats-io/nkeys", []string{"notify"}, "only notify authenticates at NATS"},
	{"github.com/nats-io/nats-server", []string{"internal/natsd"}, "the embedded server is one room"},
	{"github.com/go-acme/lego", nil, "no room of the program renews certificates"},
	{"github.com/coreos/go-systemd", []string{"internal/systemd"}, "systemd is spoken in one room"},
	{"github.com/godbus/dbus", []string{"internal/systemd"}, "systemd is spoken in one room"},
	{"github.com/goccy/go-yaml", []string{"internal/config"}, "YAML is read in one room"},
	{"github.com/spf13", []string{"cmd/renewatch"}, "the command line is read in one room"},
	{"github.com/rs/zerolog", []string{"cmd/renewatch", "internal/watchdog"}, "libraries return, one place logs"},
	{"github.com/letsencrypt", []string{"internal/certtest"}, "the ACME CA is for tests"},
	{"testing", []string{"internal/certtest", "notify/schematest"}, "the program must not carry the test framework"},
	{"net/http/pprof", nil, "it registers itself on the default mux"},
	{"expvar", nil, "it registers itself on the default mux"},
}

// islands are the libraries, and what of ours they may import.
var islands = map[string][]string{
	"watch":             {"internal/durable", "watch/acmelog"},
	"watch/acmelog":     {},
	"verify":            {"internal/durable"},
	"notify":            {"internal/durable"},
	"internal/durable":  {},
	"internal/reload":   {"internal/durable"},
	"internal/systemd":  {"internal/reload"},
	"internal/natsd":    {"notify", "internal/durable"},
	"internal/status":   {"internal/durable"},
	"internal/config":   {"verify"},
	"internal/silence":  {"verify"},
	"internal/discover": {},
	"internal/lineage":  {},
	"internal/ari":      {},
	"internal/watchdog": {
		"watch", "watch/acmelog", "verify", "notify", "internal/reload", "internal/durable", "internal/ari",
	},
}

type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func packages(t *testing.T) []listed {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestImports refuses an arrow that ARCHITECTURE.md does not have. Tests and
// examples are free.
func TestImports(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		if strings.HasPrefix(room, "examples/") {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			if why := refuse(room, imp); why != "" {
				t.Errorf("%s imports %s: %s", room, imp, why)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

func refuse(room, imp string) string {
	for _, o := range owners {
		if imp != o.prefix && !strings.HasPrefix(imp, o.prefix+"/") {
			continue
		}
		if !slices.ContainsFunc(o.rooms, func(r string) bool { return room == r || strings.HasPrefix(room, r+"/") }) {
			return o.why
		}
	}
	ours, isOurs := strings.CutPrefix(imp, module+"/")
	if !isOurs {
		return ""
	}
	if (ours == "internal/certtest" || strings.HasPrefix(ours, "internal/certtest/")) && !strings.HasPrefix(room, "internal/certtest/") {
		return "throw-away certificates are for tests and examples"
	}
	for island, may := range islands {
		if room != island && !strings.HasPrefix(room, island+"/") {
			continue
		}
		if ours != island && !strings.HasPrefix(ours, island+"/") && !slices.Contains(may, ours) {
			return island + " may know of ours only " + strings.Join(may, ", ") + " (ARCHITECTURE.md)"
		}
	}
	return ""
}

// TestRefuse shows that the rules can refuse.
func TestRefuse(t *testing.T) {
	for _, c := range []struct {
		room, imp string
		ok        bool
	}{
		{"watch", module + "/verify", false},
		{"notify", module + "/internal/config", false},
		{"verify", "github.com/rs/zerolog", false},
		{"watch", "github.com/fsnotify/fsnotify", true},
		{"notify", "github.com/nats-io/nats.go/jetstream", true},
		{"internal/watchdog", "github.com/nats-io/nats.go", false},
		{"internal/watchdog", module + "/verify", true},
		{"cmd/renewatch", module + "/internal/certtest", false},
		{"internal/status", "expvar", false},
	} {
		if got := refuse(c.room, c.imp) == ""; got != c.ok {
			t.Errorf("%s importing %s: allowed %v", c.room, c.imp, got)
		}
	}
}
