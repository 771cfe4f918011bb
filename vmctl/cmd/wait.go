package cmd

import (
	"github.com/spf13/cobra"

	"vmd/internal/vmop"
)

func (t *tool) waitCmd() *cobra.Command {
	var timeout seconds
	c := &cobra.Command{
		Use:   "wait id",
		Short: "wait until a VM has stopped",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := oneRef(c, args)
			if err != nil {
				return err
			}
			conn, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			t.announce("waiting for", ref)
			res, err := conn.Wait(c.Context(), vmop.WaitRequest{VM: ref, Timeout: uint32(timeout)})
			return t.stopped(res, err, stopOptions{wait: true})
		},
	}
	c.Flags().Var(&timeout, "timeout", "")
	return c
}
