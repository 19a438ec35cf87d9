package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/systemd"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitUnknown = 3  // check: nothing can be said
	exitConfig  = 78 // run: EX_CONFIG; the unit does not restart on it
)

// failure ends a command with a code. An empty sentence means that everything
// was said.
type failure struct {
	code     int
	sentence string
	hint     string
}

func (f *failure) Error() string { return f.sentence }

// Hint says what a person can do; it may be empty.
func (f *failure) Hint() string { return f.hint }

func failed(code int, hint, format string, args ...any) *failure {
	return &failure{code, fmt.Sprintf(format, args...), hint}
}

// app is one call of the program.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string

	config    string
	stateDir  string
	logLevel  string
	logFormat string
	json      bool
}

// run runs the program and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	out := &output{w: stdout}
	a := &app{stdin: stdin, stdout: out, stderr: stderr, getenv: os.Getenv}
	root := a.command()
	root.SetArgs(args)
	defer func() {
		if r := recover(); r != nil {
			a.complain(fmt.Sprintf("internal error: %v", r), "please report this with the lines below")
			fmt.Fprintf(stderr, "%s", debug.Stack())
			code = exitFailed
			if len(args) > 0 && args[0] == "check" {
				code = exitUnknown
			}
		}
	}()
	cmd, err := root.ExecuteC()
	if out.err != nil && !errors.Is(out.err, syscall.EPIPE) {
		code := exitFailed
		if usageCode(cmd) == exitUnknown {
			code = exitUnknown
		}
		err = failed(code, "is the disk full?", "cannot write to standard output: %v", out.err)
	}
	if err == nil || errors.Is(out.err, syscall.EPIPE) && !errors.As(err, new(*failure)) {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) {
		// What cobra itself says is about the words of the call.
		f = &failure{usageCode(cmd), strings.TrimSpace(firstLine(err.Error())), fmt.Sprintf("see %s --help", cmd.CommandPath())}
	}
	if f.sentence != "" {
		a.complain(f.sentence, f.hint)
	}
	return f.code
}

// usageCode is the code for wrong words: check has its own meaning for 2.
func usageCode(cmd *cobra.Command) int {
	if cmd.Name() == "check" && cmd.Parent() == cmd.Root() {
		return exitUnknown
	}
	return exitUsage
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// complain says what went wrong and what to do, on stderr.
func (a *app) complain(sentence, hint string) {
	// The journal reads the priority off the line, see sd-daemon(3).
	priority := ""
	if a.stderr == os.Stderr && systemd.StderrIsJournal() {
		priority = "<3>"
	}
	fmt.Fprintf(a.stderr, "%srenewatch: error: %s\n", priority, sentence)
	if hint != "" {
		fmt.Fprintf(a.stderr, "%srenewatch: hint: %s\n", priority, hint)
	}
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "renewatch",
		Short: "watch that renewed certificates are really served",
		Long: `renewatch watches certificate files, proves by TLS handshakes that the live
endpoints serve what was renewed, reloads the server where they do not, and
publishes the story to NATS.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				hint := "see renewatch --help"
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					hint = "did you mean " + near[0] + "?"
				}
				return failed(exitUsage, hint, "there is no command %q", args[0])
			}
			cmd.SetOut(a.stderr)
			_ = cmd.Help()
			return &failure{code: exitUsage}
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetHelpCommand(&cobra.Command{Use: "help [command]", Short: "help for a command", RunE: func(cmd *cobra.Command, args []string) error {
		if sub, rest, err := root.Find(args); err == nil && len(rest) == 0 {
			return sub.Help()
		}
		return failed(exitUsage, "see renewatch --help", "there is no command %q", strings.Join(args, " "))
	}})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return failed(usageCode(cmd), "see "+cmd.CommandPath()+" --help", "%s", firstLine(err.Error()))
	})
	p := root.PersistentFlags()
	p.StringVar(&a.config, "config", "", "configuration file (default: RENEWATCH_CONFIG, "+config.SystemPath+", then the user's)")
	p.StringVar(&a.stateDir, "state-dir", "", "state directory (default: the configuration's)")
	p.StringVar(&a.logLevel, "log-level", "", "trace, debug, info, warn or error")
	p.StringVar(&a.logFormat, "log-format", "", "auto, console, json or journal")
	p.BoolVar(&a.json, "json", false, "print JSON, where there is a result")
	_ = root.MarkPersistentFlagFilename("config", "yaml")
	_ = root.MarkPersistentFlagDirname("state-dir")
	root.AddCommand(a.runCommand(), a.checkCommand(), a.explainCommand(), a.eventsCommand(), a.silenceCommand(), a.healthCommand(), a.configCommand(), a.versionCommand(), a.completionCommand(root))
	return root
}

// output remembers the first error of writing.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// noArgs refuses arguments in words a person understands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return failed(exitUsage, "see "+cmd.CommandPath()+" --help", "%s takes no argument, and %q was given", cmd.CommandPath(), args[0])
	}
	return nil
}

// load finds and reads the configuration. Every fault of it is said; the code is
// what the command ends with then.
func (a *app) load(code int) (*config.Config, error) {
	path, _, err := config.Find(config.FindOptions{Flag: a.config, Env: a.getenv})
	if err != nil {
		var missing *config.NotFoundError
		if errors.As(err, &missing) {
			return nil, failed(code, missing.Hint(), "%s", missing.Error())
		}
		return nil, failed(code, "", "%v", err)
	}
	return a.loadFile(path, code)
}

// stateDirectory returns where the daemon keeps its state: the flag's directory,
// the configuration's, or without a configuration the environment's or default.
func (a *app) stateDirectory() (string, error) {
	if a.stateDir != "" {
		return a.stateDir, nil
	}
	path, _, err := config.Find(config.FindOptions{Flag: a.config, Env: a.getenv})
	if err != nil {
		dir, err := config.StateDir(config.LoadOptions{Getenv: a.getenv, UID: os.Geteuid()})
		if err != nil {
			return "", failed(exitFailed, "name it with --state-dir", "%v", err)
		}
		return dir, nil
	}
	opts := config.LoadOptions{Getenv: a.getenv, UID: os.Geteuid()}
	cfg, err := config.Load(path, opts)
	if err == nil {
		return cfg.StateDir, nil
	}
	dir := config.StateDirAnyway(path, opts)
	if dir == "" {
		return "", failed(exitFailed, "name it with --state-dir", "the configuration does not say where the state directory is: %v", err)
	}
	a.warn(failed(0, "see renewatch config check", "the configuration %s is at fault; the state directory it names is used all the same: %s", path, dir))
	return dir, nil
}

func (a *app) loadFile(path string, code int) (*config.Config, error) {
	cfg, err := config.Load(path, config.LoadOptions{Getenv: a.getenv, UID: os.Geteuid(), StateDir: a.stateDir, LogLevel: a.logLevel, LogFormat: a.logFormat})
	if err == nil {
		return cfg, nil
	}
	var errs config.Errors
	if !errors.As(err, &errs) {
		return nil, failed(code, "", "%v", err)
	}
	for _, e := range errs {
		a.complain(e.Error(), e.Hint)
	}
	return nil, &failure{code: code}
}
