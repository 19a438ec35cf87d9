package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/status"
)

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "exit 0 when the local daemon is alive",
		Long: `health asks the daemon of this state directory whether its loops beat. It says
nothing about certificates: it is meant for a container's HEALTHCHECK.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.stateDirectory()
			if err != nil {
				return err
			}
			if err := status.Health(context.Background(), dir); err != nil {
				return failed(exitFailed, hintOf(err), "%v", err)
			}
			if a.json {
				fmt.Fprintln(a.stdout, `{"status":"alive"}`)
				return nil
			}
			fmt.Fprintln(a.stdout, "alive")
			return nil
		},
	}
}
