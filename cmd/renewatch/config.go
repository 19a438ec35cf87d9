package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "check or show the configuration, or print its JSON Schema",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return failed(exitUsage, "check, show or schema", "there is no command %q", "config "+args[0])
			}
			return failed(exitUsage, "check, show or schema", "config needs a word more")
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "say every fault of the configuration",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load(exitFailed)
			if err != nil {
				return err
			}
			if err := a.wouldRun(cfg); err != nil {
				return err
			}
			for _, w := range config.Warnings(cfg) {
				fmt.Fprintf(a.stderr, "renewatch: warning: %s\n", w)
				if w.Hint != "" {
					fmt.Fprintf(a.stderr, "renewatch: hint: %s\n", w.Hint)
				}
			}
			if a.json {
				return json.NewEncoder(a.stdout).Encode(map[string]any{"ok": true, "files": cfg.Files, "certificates": len(cfg.Certificates), "servers": len(cfg.Servers)})
			}
			fmt.Fprintf(a.stdout, "%s: ok (%s, %s)\n", cfg.Files[0], count(len(cfg.Certificates), "certificate"), count(len(cfg.Servers), "server"))
			return nil
		},
	}, &cobra.Command{
		Use:   "show",
		Short: "print the configuration with every default, and where each value comes from",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.load(exitFailed)
			if err != nil {
				return err
			}
			text := config.Show(cfg)
			if a.json {
				if text, err = config.ShowJSON(cfg); err != nil {
					return failed(exitFailed, "", "%v", err)
				}
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}, &cobra.Command{
		Use:   "schema",
		Short: "print the JSON Schema of the configuration file",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(config.Schema())
			return err
		},
	})
	return cmd
}

// wouldRun says what run would refuse at its start besides the words of the
// configuration.
func (a *app) wouldRun(cfg *config.Config) error {
	if _, err := hostName(cfg.Host); err != nil {
		return refused(err)
	}
	if _, err := keeperSetup(cfg, true); err != nil {
		return refused(err)
	}
	return refused(checkNATS(cfg))
}

// refused gives what run refuses the code of a bad file.
func refused(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return &failure{exitFailed, f.sentence, f.hint}
	}
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
