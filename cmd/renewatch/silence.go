package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/silence"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// silenceFlags are the flags of silence.
type silenceFlags struct {
	all, force, list  bool
	span, reason, end string
}

func (a *app) silenceCommand() *cobra.Command {
	var f silenceFlags
	cmd := &cobra.Command{
		Use:   "silence NAME|ENDPOINT|--all --for DUR --reason TEXT [--force] | --list | --end ID",
		Short: "no alert and no repair for a while",
		Long: `silence keeps a certificate, an endpoint or everything on this host from raising
alerts and from being repaired for a while, for planned work. An argument with
:// is an endpoint, anything else is a certificate's name.

The watching goes on: events are told as ever, with "silenced": true. A silence
ends by itself, or with --end. It outlasts a restart, and it can be made while no
daemon runs; one that runs takes it in within 10 seconds.

When what is served has expired there is an alert all the same, unless --force
was given.`,
		Example: `  renewatch silence www.example.org --for 2h --reason "new load balancer"
  renewatch silence smtp://mx.example.org --for 3d --reason "moving house"
  renewatch silence --all --for 30m --reason "kernel update"
  renewatch silence --list
  renewatch silence --end 3fa9c1d0`,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.silence(cmd, f, args) },
		ValidArgsFunction: a.completeSilence,
	}
	cmd.DisableFlagsInUseLine = true
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all", false, "silence everything on this host")
	fl.StringVar(&f.span, "for", "", "how long, such as 30m, 2h, 3d or 1w; 366d at most")
	fl.StringVar(&f.reason, "reason", "", "why, for those who come after")
	fl.BoolVar(&f.force, "force", false, "no alert either when what is served has expired")
	fl.BoolVar(&f.list, "list", false, "print the silences that have not ended")
	fl.StringVar(&f.end, "end", "", "end the silence with this ID")
	_ = cmd.RegisterFlagCompletionFunc("end", a.completeSilenceID)
	for _, name := range []string{"for", "reason"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

func (a *app) silence(cmd *cobra.Command, f silenceFlags, args []string) error {
	given := func(names ...string) string {
		for _, n := range names {
			if cmd.Flags().Changed(n) {
				return "--" + n
			}
		}
		if len(args) > 0 {
			return fmt.Sprintf("%q", args[0])
		}
		return ""
	}
	const example = `renewatch silence www.example.org --for 2h --reason "new load balancer"`
	switch {
	case f.list:
		if other := given("all", "for", "reason", "force", "end"); other != "" {
			return failed(exitUsage, "renewatch silence --list", "--list stands alone, and %s was given", other)
		}
		return a.listSilences()
	case cmd.Flags().Changed("end"):
		if other := given("all", "for", "reason", "force", "list"); other != "" {
			return failed(exitUsage, "renewatch silence --end ID", "--end stands alone, and %s was given", other)
		}
		return a.endSilence(f.end)
	case len(args) > 1:
		return failed(exitUsage, "call it once for each, or silence --all", "silence takes one name or endpoint, and %d were given", len(args))
	case f.all && len(args) > 0:
		return failed(exitUsage, "give one of the two", "%q and --all were given", args[0])
	case !f.all && len(args) == 0:
		return failed(exitUsage, example, "silence needs the name of a certificate, an endpoint, or --all")
	case f.span == "" && strings.TrimSpace(f.reason) == "":
		return failed(exitUsage, example, "--for and --reason are missing")
	case f.span == "":
		return failed(exitUsage, "say how long: --for 2h; units are m h d w", "--for is missing")
	case strings.TrimSpace(f.reason) == "":
		return failed(exitUsage, `say why, for those who come after: --reason "new load balancer"`, "--reason is missing")
	}
	d, err := config.ParseDuration(f.span)
	switch {
	case err != nil:
		return failed(exitUsage, "write --for 2h, 30m or 3d", "--for %s: %v", f.span, err)
	case d < time.Second:
		return failed(exitUsage, "write --for 2h, 30m or 3d", "--for %s: a silence lasts a second at least", f.span)
	}
	state, err := a.stateDirectory()
	if err != nil {
		return err
	}
	now := time.Now().Truncate(time.Millisecond)
	s := silence.Silence{All: f.all, Since: now, Until: now.Add(d), Reason: f.reason, By: who(a.getenv), Force: f.force}
	var warnings []*failure
	if !f.all {
		if warnings, err = a.silenced(&s, state, args[0]); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(state, "layout.json")); errors.Is(err, fs.ErrNotExist) {
		warnings = append(warnings, failed(0, "is it the daemon's? see --state-dir and --config", "no renewatch has run with the state directory %s yet", state))
	}
	s, err = silence.In(state).Add(s)
	var wrong *silence.Error
	switch {
	case errors.Is(err, silence.ErrFull):
		return failed(exitFailed, hintOf(err), "%v", err)
	case errors.As(err, &wrong):
		return failed(exitUsage, wrong.Hint(), "%v", err)
	case err != nil:
		return silenceFailed(err, "the silence cannot be kept")
	}
	for _, w := range warnings {
		a.warn(w)
	}
	if a.json {
		return json.NewEncoder(a.stdout).Encode(s)
	}
	what := "no alert, no repair"
	if s.Force {
		what = "no alert, not even when expired, and no repair"
	}
	fmt.Fprintf(a.stdout, "silenced %s until %s (%s): %s; a running daemon takes it in within 10 seconds; to end it: renewatch silence --end %s\n",
		s.What(), local(s.Until), lasting(d), what, s.ID)
	return nil
}

// warn says what is probably not meant, on stderr.
func (a *app) warn(f *failure) {
	fmt.Fprintf(a.stderr, "renewatch: warning: %s\n", f.sentence)
	if f.hint != "" {
		fmt.Fprintf(a.stderr, "renewatch: hint: %s\n", f.hint)
	}
}

func silenceFailed(err error, what string) error {
	hint := "is the disk full, or the state directory not ours?"
	if errors.Is(err, fs.ErrPermission) {
		hint = "run it as the user the daemon runs as"
	}
	return failed(exitFailed, hint, "%s: %v", what, err)
}

// silenced fills in what s is about: a certificate that is known here, or an
// endpoint, known or not.
func (a *app) silenced(s *silence.Silence, state, arg string) (warnings []*failure, err error) {
	cfg := a.quietly()
	if !strings.Contains(arg, "://") {
		s.Certificate, err = certificateName(cfg, state, arg)
		return nil, err
	}
	e, err := verify.ParseEndpoint(arg)
	if err != nil {
		var f *failure
		if errors.As(badEndpoint(arg, err), &f) {
			f.code = exitUsage
			return nil, f
		}
		return nil, err
	}
	s.Endpoint = arg
	if cfg == nil {
		return append(warnings, failed(0, "name the daemon's with --config", "without a configuration nobody can say whether %s is watched", arg)), nil
	}
	near, known := watchedEndpoint(cfg, state, e)
	if !known {
		hint := "it is silenced as it is written in the configuration, address= included"
		if len(near) > 0 {
			hint = "configured are " + strings.Join(near[:min(10, len(near))], " ")
		}
		warnings = append(warnings, failed(0, hint, "no certificate has the endpoint %s: nothing is silenced until one has", arg))
	}
	return warnings, nil
}

// quietly returns the configuration, nil when there is none that can be read.
func (a *app) quietly() *config.Config {
	path, _, err := config.Find(config.FindOptions{Flag: a.config, Env: a.getenv})
	if err != nil {
		return nil
	}
	cfg, err := config.Load(path, config.LoadOptions{Getenv: a.getenv, UID: os.Geteuid(), StateDir: a.stateDir})
	if err != nil {
		return nil
	}
	return cfg
}

// certificateName returns the name as it is known here: by the configuration, or
// by the daemon, which also remembers what a glob found.
func certificateName(cfg *config.Config, state, arg string) (string, error) {
	var known []string
	if cfg != nil {
		for _, conf := range cfg.Certificates {
			for _, one := range expand(conf) {
				known = append(known, one.Name)
			}
		}
	}
	if i := slices.IndexFunc(known, func(n string) bool { return strings.EqualFold(n, arg) }); i >= 0 {
		return known[i], nil
	}
	if name := rememberedName(filepath.Join(state, "certificates", notify.Token(arg)+".json")); name != "" && strings.EqualFold(name, arg) {
		return name, nil
	}
	known = append(known, rememberedNames(state)...)
	slices.Sort(known)
	known = slices.Compact(known)
	hint := "--all silences everything"
	if len(known) > 0 {
		hint = "known are " + strings.Join(known[:min(10, len(known))], ", ")
		if more := len(known) - 10; more > 0 {
			hint += fmt.Sprintf(" and %d more", more)
		}
		if near := config.Nearest(arg, known); near != "" {
			hint = "did you mean " + near + "? " + hint
		}
	} else if cfg == nil {
		hint = "no configuration could be read, name it with --config; " + hint
	}
	return "", failed(exitUsage, hint+"; an endpoint is written with its scheme, such as https://www.example.org", "no certificate is named %q", arg)
}

// rememberedName returns the name in one of the daemon's files.
func rememberedName(path string) string {
	const most = 8 << 20
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > most {
		return ""
	}
	var s struct{ Name string }
	if readJSONFile(path, &s) != nil {
		return ""
	}
	return s.Name
}

// rememberedNames returns names that the daemon remembers, as many as a person
// can use.
func rememberedNames(state string) []string {
	entries, err := os.ReadDir(filepath.Join(state, "certificates"))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries[:min(1000, len(entries))] {
		if strings.HasSuffix(e.Name(), ".json") {
			if name := rememberedName(filepath.Join(state, "certificates", e.Name())); name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

// watchedEndpoint reports whether e is an endpoint of a certificate, and which
// endpoints of the same name there are.
func watchedEndpoint(cfg *config.Config, state string, e verify.Endpoint) (near []string, known bool) {
	for _, conf := range cfg.Certificates {
		for _, own := range conf.Endpoints {
			if own.URL == e {
				return nil, true
			}
			if own.URL.Host() == e.Host() || own.URL.Name() == e.Name() {
				near = append(near, own.Text)
			}
		}
	}
	slices.Sort(near)
	near = slices.Compact(near)
	for _, conf := range cfg.Certificates {
		if conf.Endpoints != nil {
			continue
		}
		for _, one := range expand(conf) {
			if watchdog.Remembered(state, one.Name).Confirmed[e.String()] {
				return nil, true
			}
			if pair, _ := watch.LoadCertificate(one.Cert); pair != nil && slices.Contains(watchdog.DefaultEndpoints(pair.Leaf().DNSNames), e) {
				return nil, true
			}
		}
	}
	return near, false
}

func (a *app) listSilences() error {
	state, err := a.stateDirectory()
	if err != nil {
		return err
	}
	all, faults, err := silence.In(state).List()
	if err != nil {
		return silenceFailed(err, "the silences cannot be read")
	}
	for _, f := range faults {
		a.warn(failed(0, f.Hint, "%s", filepath.Join(state, "silences", f.String())))
	}
	now := time.Now()
	all = slices.DeleteFunc(all, func(s silence.Silence) bool { return s.Ended(now) })
	p := a.painter(a.stdout)
	switch {
	case a.json:
		enc := json.NewEncoder(a.stdout)
		for _, s := range all {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
	case p.terminal:
		a.silenceTable(p, all, now)
	default:
		for _, s := range all {
			words := []string{s.ID, s.What(), "until " + local(s.Until), remaining(s, now), "by " + cmp.Or(s.By, "-")}
			if s.Force {
				words = append(words, "force")
			}
			fmt.Fprintln(a.stdout, strings.Join(append(words, s.Reason), "  "))
		}
	}
	return nil
}

// silenceTable prints silences for a person at a terminal.
func (a *app) silenceTable(p painter, all []silence.Silence, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(a.stdout, "nothing is silenced")
		return
	}
	rows := [][]string{{"ID", "WHAT", "UNTIL", "LEFT", "BY", "FORCE"}}
	for _, s := range all {
		force := "-"
		if s.Force {
			force = "force"
		}
		rows = append(rows, []string{s.ID, s.What(), local(s.Until), remaining(s, now), cmp.Or(s.By, "-"), force})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for i, row := range rows {
		var b strings.Builder
		for j, cell := range row {
			cell += strings.Repeat(" ", widths[j]-len([]rune(cell)))
			switch {
			case i == 0:
				cell = p.paint(dim, cell)
			case j == 1:
				cell = p.paint(bold, cell)
			case j == 5 && all[i-1].Force:
				cell = p.paint(yellow, cell)
			}
			b.WriteString(cell + "  ")
		}
		fmt.Fprintln(a.stdout, strings.TrimRight(b.String(), " "))
		if i > 0 {
			indent := widths[0] + 2
			fmt.Fprintf(a.stdout, "%*s%s\n", indent, "", wrap(all[i-1].Reason, p.width-indent, indent))
		}
	}
}

func (a *app) endSilence(id string) error {
	state, err := a.stateDirectory()
	if err != nil {
		return err
	}
	dir := silence.In(state)
	s, err := dir.End(id)
	if errors.Is(err, silence.ErrUnknown) {
		hint := "nothing is silenced"
		all, _, err := dir.List()
		now := time.Now()
		all = slices.DeleteFunc(all, func(s silence.Silence) bool { return s.Ended(now) })
		if err != nil {
			return silenceFailed(err, "the silences cannot be read")
		}
		if len(all) > 0 {
			var known []string
			for _, s := range all[:min(10, len(all))] {
				known = append(known, s.ID+" ("+s.What()+")")
			}
			hint = "in force are " + strings.Join(known, ", ")
			if more := len(all) - 10; more > 0 {
				hint += fmt.Sprintf(" and %d more", more)
			}
		}
		return failed(exitFailed, hint, "no silence has the ID %q", id)
	}
	if err != nil {
		return silenceFailed(err, "the silence cannot be ended")
	}
	if a.json {
		return json.NewEncoder(a.stdout).Encode(struct {
			silence.Silence
			Ended time.Time `json:"ended"`
		}{s, time.Now().UTC().Truncate(time.Millisecond)})
	}
	switch {
	case s.What() == "":
		fmt.Fprintf(a.stdout, "removed silence %s, which nobody could read\n", s.ID)
	case s.Ended(time.Now()):
		fmt.Fprintf(a.stdout, "the silence of %s had ended by itself at %s\n", s.What(), local(s.Until))
	default:
		fmt.Fprintf(a.stdout, "ended the silence of %s; a running daemon takes it in within 10 seconds\n", s.What())
	}
	return nil
}

// local is a time as the clock on this host shows it.
func local(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -07:00") }

// lasting says how long something lasts, rounded, as --for takes it.
func lasting(d time.Duration) string {
	unit := time.Second
	switch {
	case d >= 48*time.Hour:
		unit = time.Hour
	case d >= 2*time.Minute:
		unit = time.Minute
	}
	d = max(d.Round(unit), time.Second)
	var out string
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / u.size; n > 0 {
			out += fmt.Sprintf("%d%s", n, u.name)
			d -= n * u.size
		}
	}
	return out
}

func remaining(s silence.Silence, now time.Time) string {
	if now.Before(s.Since) {
		return "begins " + local(s.Since)
	}
	return lasting(s.Until.Sub(now)) + " left"
}

// who returns the name of the person who calls, as well as it can be known.
func who(getenv func(string) string) string {
	if name := getenv("SUDO_USER"); name != "" && os.Geteuid() == 0 {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Geteuid())
}

// completeSilence offers the names and endpoints that are configured.
func (a *app) completeSilence(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	cfg := a.quietly()
	if cfg == nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, conf := range cfg.Certificates {
		for _, one := range expand(conf) {
			out = append(out, one.Name)
		}
		for _, e := range conf.Endpoints {
			out = append(out, e.Text)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeSilenceID offers the silences that can be ended.
func (a *app) completeSilenceID(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if state, err := a.stateDirectory(); err == nil {
		all, _, _ := silence.In(state).List()
		for _, s := range all {
			if !s.Ended(time.Now()) {
				out = append(out, s.ID+"\t"+s.What())
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
