package main

import (
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
			for _, w := range config.Warnings(cfg) {
				fmt.Fprintf(a.stderr, "renewatch: warning: %s\n", w)
				if w.Hint != "" {
					fmt.Fprintf(a.stderr, "renewatch: hint: %s\n", w.Hint)
				}
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
			_, err = a.stdout.Write(config.Show(cfg))
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

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
