package silence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func add(t testing.TB, d Dir, s Silence) Silence {
	t.Helper()
	s, err := d.Add(s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes a file beside the silences, as a person with an editor would.
func put(t testing.TB, d Dir, name, text string) string {
	t.Helper()
	path := filepath.Join(d.state, subdir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func listed(t testing.TB, d Dir) ([]Silence, []Fault) {
	t.Helper()
	all, faults, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	return all, faults
}

func TestAddListEnd(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state") // made by Add
	d := In(state)
	if all, faults := listed(t, d); all != nil || faults != nil {
		t.Fatalf("%v, %v", all, faults)
	}
	later := add(t, d, of(func(s *Silence) {
		s.Certificate, s.Endpoint = "", "https://WWW.example.org:443/"
		s.Since = noon.In(time.FixedZone("", 3600))
		s.Until, s.Force = s.Since.Add(48*time.Hour), true
	}))
	soon := add(t, d, of(nil))
	if later.Canonical != "https://www.example.org" || later.Endpoint != "https://WWW.example.org:443/" || later.Since != noon || len(later.ID) != 8 {
		t.Errorf("%+v", later)
	}
	for path, mode := range map[string]os.FileMode{state: 0o700, filepath.Join(state, "silences"): 0o700, filepath.Join(state, "silences", soon.ID+".json"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if all, faults := listed(t, d); !slices.Equal(all, []Silence{soon, later}) || faults != nil {
		t.Errorf("got %+v, %v; want %+v, %+v", all, faults, soon, later)
	}
	text, err := os.ReadFile(filepath.Join(state, "silences", soon.ID+".json"))
	want := `{"version":1,"id":"` + soon.ID + `","certificate":"www.example.org","since":"2026-11-22T12:00:00Z","until":"2026-11-22T14:00:00Z","reason":"new load balancer","by":"alice","force":false}` + "\n"
	if err != nil || string(text) != want {
		t.Errorf("%v, got\n%swant\n%s", err, text, want)
	}
	if s, err := d.End(later.ID); err != nil || s != later {
		t.Errorf("%+v, %v", s, err)
	}
	for _, id := range []string{later.ID, "", ".", "..", "../certificates/www", soon.ID + ".json", soon.ID + "/", strings.ToUpper(soon.ID) + "X", "*"} {
		if _, err := d.End(id); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if all, _ := listed(t, d); !slices.Equal(all, []Silence{soon}) {
		t.Errorf("%+v", all)
	}
	if _, err := In(filepath.Join(state, "none")).End(soon.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
	if s := add(t, d, Silence{All: true, Until: time.Now().Add(time.Hour), Reason: "r"}); !s.InForce(time.Now()) {
		t.Errorf("%+v does not begin now", s)
	}
	entries, err := os.ReadDir(filepath.Join(state, "silences"))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

// A file that somebody edited, damaged or planted silences nothing, is told, and
// keeps no other from being read.
func TestHostileFiles(t *testing.T) {
	d := In(t.TempDir())
	good := add(t, d, of(nil))
	const sound = `{"version":1,"all":true,"since":"2026-11-22T12:00:00Z","until":"2026-11-22T14:00:00Z","reason":"r"}`
	secret := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(secret, []byte(sound), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	bad := func(name, text, sentence string) {
		t.Helper()
		put(t, d, name+".json", text)
		want[name+".json"] = sentence
	}
	bad("empty", "", "it does not hold a silence")
	bad("half", sound[:60], "it does not hold a silence")
	bad("twice", sound+sound, "it does not hold a silence")
	bad("list", "["+sound+"]", "it does not hold a silence")
	bad("deep", strings.Repeat("[", 20_000), "it does not hold a silence")
	bad("number", strings.Replace(sound, `true`, `1`, 1), "it does not hold a silence")
	bad("date", strings.Replace(sound, "2026-11-22T12:00:00Z", "yesterday", 1), "it does not hold a silence")
	bad("null", "null", "a silence is about one certificate, one endpoint or everything")
	bad("object", "{}", "a silence is about one certificate, one endpoint or everything")
	bad("other", strings.Replace(sound, `"all":true`, `"server":"nginx"`, 1), "a silence is about one certificate, one endpoint or everything")
	bad("both", strings.Replace(sound, `"all"`, `"certificate":"a","all"`, 1), "a silence is about one certificate, one endpoint or everything")
	bad("newer", strings.Replace(sound, `:1`, `:2`, 1), "it was written by a newer renewatch")
	bad("huge", strings.Replace(sound, `"r"`, `"`+strings.Repeat("r", MaxFile)+`"`, 1), "it is larger than 64 KiB")
	bad("forever", strings.Replace(sound, "2026-11-22T14", "2036-11-22T14", 1), "a silence lasts 366 days at most")
	bad("backwards", strings.Replace(sound, "2026-11-22T14", "2026-11-22T10", 1), "it ends before it begins")
	bad("zero", strings.Replace(sound, "2026-11-22T12", "0001-01-01T00", 1), "it begins or ends at no time there is")
	bad("endpoint", strings.Replace(sound, `"all":true`, `"endpoint":"htps://a","canonical":"https://a.example.org"`, 1), "the endpoint is none that can be dialled")
	bad("Upper", sound, "its name cannot be the ID of a silence")
	bad("a b\x1b[2J", sound, "its name cannot be the ID of a silence")
	want["a b [2J.json"] = want["a b\x1b[2J.json"]
	delete(want, "a b\x1b[2J.json")
	dir := filepath.Join(d.state, subdir)
	for name, plant := range map[string]func(string) error{
		"link":   func(p string) error { return os.Symlink(secret, p) },
		"inside": func(p string) error { return os.Symlink(good.ID+".json", p) },
		"pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"folder": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		if err := plant(filepath.Join(dir, name+".json")); err != nil {
			t.Fatal(err)
		}
		want[name+".json"] = "it is no regular file"
	}
	// What does not end in .json is none of ours.
	put(t, d, "README", "x")
	put(t, d, ".abc.json.new", "x")
	put(t, d, ".hidden.json", sound)
	// These are edited, and sound.
	put(t, d, "maintenance.json", strings.Replace(sound, `"r"`, `"a\u001b[2J\nb"`, 1))
	copied, err := os.ReadFile(filepath.Join(dir, good.ID+".json"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, d, "copy-1.json", strings.Replace(string(copied), `"www.example.org"`, `"mail","canonical":"https://a.example.org"`, 1))
	put(t, d, "future.json", strings.NewReplacer("2026-11-22T12", "2050-11-22T12", "2026-11-22T14", "2050-11-22T14").Replace(sound))
	put(t, d, "offset.json", strings.NewReplacer("12:00:00Z", "13:00:00+01:00", `"all":true`, `"Endpoint":"https://a.example.org:443","canonical":"https://b.example.org","new":1`).Replace(sound))

	all, faults := listed(t, d)
	got := map[string]string{}
	for _, f := range faults {
		got[f.Name] = f.Sentence
		if f.String() != f.Name+": "+f.Sentence || f.Hint == "" {
			t.Errorf("%q has no hint", f)
		}
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("also at fault: %v", got)
	}
	byID := map[string]Silence{}
	for _, s := range all {
		byID[s.ID] = s
	}
	if len(byID) != 5 || byID[good.ID] != good || byID["copy-1"].Certificate != "mail" || byID["copy-1"].Canonical != "" || byID["maintenance"].Reason != "a [2J b" {
		t.Errorf("%+v", all)
	}
	if s := byID["future"]; s.InForce(noon) || s.Ended(noon) || !s.InForce(s.Since) {
		t.Errorf("%+v", s)
	}
	if s := byID["offset"]; s.Since != noon || s.CoversEndpoint("https://b.example.org") || !s.CoversEndpoint("https://a.example.org") {
		t.Errorf("%+v", s)
	}
	// End gets rid of what has a name to be ended by, and touches nothing a link
	// leads to.
	for _, id := range []string{"half", "pipe", "link", "inside", "folder"} {
		if s, err := d.End(id); err != nil || s.What() != "" || s.ID != id {
			t.Errorf("%s: %+v, %v", id, s, err)
		}
	}
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}
	if after, _ := listed(t, d); len(after) != 5 {
		t.Errorf("%+v", after)
	}
}

// Nothing that stands in the state directory leads out of it: it may belong to a
// less trusted user than the one who silences.
func TestNothingLeadsOut(t *testing.T) {
	outside := t.TempDir()
	d := In(t.TempDir())
	if err := os.Symlink(outside, filepath.Join(d.state, subdir)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Add(of(nil)); err == nil {
		t.Error("it is written outside")
	}
	if _, _, err := d.List(); err == nil {
		t.Error("it is read outside")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	other := In(t.TempDir())
	if err := os.WriteFile(filepath.Join(other.state, subdir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Add(of(nil)); err == nil {
		t.Error("a file is a directory")
	}
	if _, _, err := other.List(); err == nil {
		t.Error("a file is a directory")
	}
}

// What root silences belongs to the user whose state directory it is.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	d := In(t.TempDir())
	if err := os.Chown(d.state, 12345, 54321); err != nil {
		t.Fatal(err)
	}
	s := add(t, d, of(nil))
	for _, path := range []string{subdir, filepath.Join(subdir, s.ID+".json")} {
		info, err := os.Stat(filepath.Join(d.state, path))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 12345 || st.Gid != 54321 {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
}

func TestSignature(t *testing.T) {
	d := In(t.TempDir())
	seen := map[Signature]string{}
	last := Signature{}
	look := func(what string, differs bool) {
		t.Helper()
		got, err := d.Signature()
		if err != nil {
			t.Fatal(err)
		}
		if (got != last) != differs {
			t.Errorf("%s: differs is %v", what, got != last)
		}
		if before, again := seen[got]; again && differs {
			t.Errorf("%s is the same as %s", what, before)
		}
		last = got
		seen[got] = what
	}
	look("nothing", false)
	if last != (Signature{}) {
		t.Error("nothing is not zero")
	}
	s := add(t, d, of(nil))
	look("one", true)
	look("one again", false)
	put(t, d, ".x.json.new", "half")
	look("a temporary file", false)
	other := add(t, d, of(nil))
	look("two", true)
	path := put(t, d, s.ID+".json", "edited")
	look("edited", true)
	put(t, d, s.ID+".json", "EDITED")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	look("edited without another size", true)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	look("closed", true)
	if _, err := d.End(other.ID); err != nil {
		t.Fatal(err)
	}
	look("ended", true)
	if err := os.Rename(path, filepath.Join(d.state, subdir, "a.json")); err != nil {
		t.Fatal(err)
	}
	look("renamed", true)
}

func TestSweep(t *testing.T) {
	d := In(t.TempDir())
	if n, err := d.Sweep(noon); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	until := func(at time.Time) Silence {
		return add(t, d, of(func(s *Silence) { s.Since, s.Until = at.Add(-time.Hour), at }))
	}
	now := noon.Add(Kept)
	until(noon)
	until(noon.Add(-time.Hour))
	stays := []Silence{until(noon.Add(time.Second)), until(now), until(now.Add(time.Hour))}
	put(t, d, "bad.json", "{}")
	put(t, d, "README", "")
	for name, age := range map[string]time.Duration{".old.json.new": 2 * time.Hour, ".young.json.new": time.Minute} {
		if err := os.Chtimes(put(t, d, name, "half"), time.Time{}, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := d.Sweep(now); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if all, faults := listed(t, d); !slices.Equal(all, stays) || len(faults) != 1 {
		t.Errorf("%+v, %v", all, faults)
	}
	entries, err := os.ReadDir(filepath.Join(d.state, subdir))
	if err != nil || len(entries) != 6 {
		t.Errorf("%v, %v", entries, err)
	}
}

// There are never more silences than are read: those that ended make room, and
// more than that are refused.
func TestTooMany(t *testing.T) {
	d := In(t.TempDir())
	text := func(from time.Time) string {
		data, err := json.Marshal(of(func(s *Silence) { s.Since, s.Until = from, from.Add(time.Hour) }))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	now := time.Now()
	over, on := text(now.Add(-2*time.Hour)), text(now.Add(-time.Minute))
	for i := range MaxSilences {
		what := on
		if i%2 == 0 {
			what = over
		}
		put(t, d, fmt.Sprintf("%04d.json", i), what)
	}
	add(t, d, of(nil))
	if all, faults := listed(t, d); len(all) != MaxSilences/2+1 || faults != nil {
		t.Errorf("%d, %v", len(all), faults)
	}
	for i := 0; i < MaxSilences; i += 2 { // as somebody does who copies files
		put(t, d, fmt.Sprintf("%04d.json", i), on)
	}
	all, faults := listed(t, d)
	if len(all) != MaxSilences || len(faults) != 1 || faults[0].String() != "there are more than 1000 silences, and only 1000 are read" {
		t.Errorf("%d, %v", len(all), faults)
	}
	if _, err := d.Add(of(nil)); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	for i := range maxNames - MaxSilences {
		put(t, d, fmt.Sprintf("junk-%d", i), "")
	}
	if _, faults := listed(t, d); len(faults) == 0 {
		t.Error("a directory that is full of other things is not told")
	}
}

// Silences that are made, ended and read at once are whole or not there.
func TestAtOnce(t *testing.T) {
	d := In(t.TempDir())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				s, err := d.Add(of(nil))
				if err == nil {
					_, err = d.Signature()
				}
				if err == nil {
					_, err = d.End(s.ID)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		if _, faults, err := d.List(); len(faults) > 0 || err != nil {
			t.Errorf("%v, %v", faults, err)
		}
		if _, err := d.Sweep(noon); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
			if all, _ := listed(t, d); len(all) > 0 {
				t.Errorf("%+v", all)
			}
			return
		default:
		}
	}
}

// Whatever stands in a file, what is read of it is a silence that could have been
// added, and safe to print.
func FuzzRead(f *testing.F) {
	data, err := json.Marshal(file{version, of(nil)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"endpoint":"smtp://mx.example.org","since":"2026-11-22T12:00:00+01:00","until":"2026-11-22T14:00:00Z","reason":"\ud800\u202e"}`))
	state := f.TempDir()
	d := In(state)
	path := put(f, d, "a.json", "")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		all, faults := listed(t, d)
		if len(all)+len(faults) != 1 {
			t.Fatalf("%v, %v", all, faults)
		}
		for _, x := range faults {
			if !printable(x.String()+x.Hint) || len(x.String()) > 200 {
				t.Errorf("%q", x)
			}
		}
		for _, s := range all {
			again, err := s.normal()
			if err != nil || again != s {
				t.Errorf("%+v becomes %+v, %v", s, again, err)
			}
			if !printable(s.Reason+s.By+s.What()) || s.What() == "" || s.Until.Sub(s.Since) > MaxSpan || s.InForce(s.Until) || !s.InForce(s.Since) {
				t.Errorf("%+v", s)
			}
		}
	})
}

func BenchmarkSignature(b *testing.B) {
	for _, n := range []int{1, 10, MaxSilences} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := In(b.TempDir())
			for i := range n {
				put(b, d, fmt.Sprintf("%04d.json", i), "{}")
			}
			for b.Loop() {
				if _, err := d.Signature(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCoversEndpoint(b *testing.B) {
	s := Silence{Endpoint: "https://www.example.org", Canonical: "https://www.example.org"}
	for b.Loop() {
		s.CoversEndpoint("https://mail.example.org")
	}
}
