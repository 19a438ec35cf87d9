package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch/acmelog"
)

func (a *app) explainCommand() *cobra.Command {
	var client string
	cmd := &cobra.Command{
		Use:   "explain FILE|-",
		Short: "read an ACME client's log and list the attempts it tells of",
		Long: `explain reads the log of an ACME client: a file (also a compressed one), or -
for standard input. Lines may come as the client wrote them, from journalctl -o
json, from Docker's json-file or from a container runtime's log.

A log is a hint, never a proof: whether a certificate is served shows renewatch
check.`,
		Example: `  renewatch explain /var/log/letsencrypt/letsencrypt.log
  journalctl -o json -a -u certbot.service | renewatch explain - --client certbot
  renewatch explain --json caddy.log | jq 'select(.outcome == "failed")'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failed(exitUsage, "name one log, or - for standard input", "explain takes one file, and %d were given", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if client != "" && !slices.Contains(acmelog.Clients(), acmelog.Client(client)) {
				hint := "one of " + clientNames()
				if near := config.Nearest(client, strings.Split(clientNames(), ", ")); near != "" {
					hint = "did you mean " + near + "? " + hint
				}
				return failed(exitUsage, hint, "--client %q is no ACME client whose log is understood", client)
			}
			return a.explain(args[0], acmelog.Client(client))
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "the ACME client that wrote the log; recognised where it is not given")
	return cmd
}

func clientNames() string {
	var names []string
	for _, c := range acmelog.Clients() {
		names = append(names, string(c))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// maxHead is how much of standard input is looked at to recognise whose log it is.
const maxHead = 16 << 20

func (a *app) explain(name string, client acmelog.Client) error {
	in, shown, changed := a.stdin, "-", time.Time{}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			hint := "run it as root, or as a user that may read it"
			if errors.Is(err, fs.ErrNotExist) {
				hint = "name the log file, or - for standard input"
			}
			return failed(exitFailed, hint, "%v", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return failed(exitFailed, "", "%v", err)
		}
		if info.IsDir() {
			return failed(exitFailed, "name a file in it", "%s is a directory", name)
		}
		in, changed, shown = f, info.ModTime(), name
		if abs, err := filepath.Abs(name); err == nil {
			shown = abs
		}
	}
	text, err := uncompressed(in)
	if err != nil {
		return failed(exitFailed, "", "%s: %v", name, err)
	}
	if client == "" {
		var ok bool
		if client, text, ok, err = recognise(text); err != nil {
			return failed(exitFailed, "", "%s cannot be read: %v", name, err)
		} else if !ok {
			return failed(exitUsage, "name the client with --client: "+clientNames(), "%s is not recognised as the log of an ACME client", name)
		}
	}
	p := acmelog.NewParser(acmelog.Options{Client: client, Log: shown})
	attempts, err := acmelog.Explain(p, text, changed, time.Now())
	for _, attempt := range attempts {
		if err := a.printAttempt(watchdog.WireAttempt(attempt)); err != nil {
			return failed(exitFailed, "", "cannot write: %v", err)
		}
	}
	if err != nil {
		return failed(exitFailed, "", "%s cannot be read: %v", name, err)
	}
	if len(attempts) == 0 && !a.json {
		fmt.Fprintf(a.stderr, "renewatch: the log of %s tells of no attempt\n", client)
	}
	return nil
}

// uncompressed reads through gzip where the text is compressed by it.
func uncompressed(in io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(in, 256<<10)
	if magic, err := b.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return b, nil
	}
	return gzip.NewReader(b)
}

// recognise finds out whose log it is, and returns the whole text again.
func recognise(text io.Reader) (client acmelog.Client, again io.Reader, ok bool, err error) {
	r := acmelog.NewRecogniser()
	var head bytes.Buffer
	buf := make([]byte, 64<<10)
	for head.Len() < maxHead {
		n, err := text.Read(buf)
		head.Write(buf[:n])
		r.Write(buf[:n]) //nolint:errcheck // never fails
		if c, certain, _ := r.Client(); certain {
			return c, io.MultiReader(&head, text), true, nil
		}
		if err == io.EOF {
			r.Write([]byte{'\n'}) //nolint:errcheck // never fails
			break
		}
		if err != nil {
			return "", nil, false, err
		}
	}
	c, _, ok := r.Client()
	return c, io.MultiReader(&head, text), ok, nil
}

func (a *app) printAttempt(t notify.Attempt) error {
	if a.json {
		line, err := json.Marshal(t)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(append(line, '\n'))
		return err
	}
	p := a.painter(a.stdout)
	when := strings.Repeat(" ", len("2006-01-02 15:04:05"))
	if at := t.Started; !at.IsZero() {
		when = at.Local().Format("2006-01-02 15:04:05")
	} else if at := t.Ended; !at.IsZero() {
		when = at.Local().Format("2006-01-02 15:04:05")
	}
	colour := map[acmelog.Outcome]string{acmelog.Issued: green, acmelog.Skipped: dim, acmelog.Failed: red, acmelog.Stalled: yellow, acmelog.Running: bold}
	sentence, hint := watchdog.TellAttempt(t)
	subject := cmp.Or(t.Lineage, strings.Join(t.Names[:min(1, len(t.Names))], ""), "-")
	_, err := fmt.Fprintf(a.stdout, "%s  %s  %-24s  %s\n", when, p.paint(colour[acmelog.Outcome(t.Outcome)], fmt.Sprintf("%-7s", t.Outcome)), subject, sentence)
	if err == nil && hint != "" {
		_, err = fmt.Fprintf(a.stdout, "%30s%s\n", "", p.paint(dim, "hint: "+hint))
	}
	return err
}
