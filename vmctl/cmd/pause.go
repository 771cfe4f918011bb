package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

func (t *tool) pauseCmd() *cobra.Command {
	return t.changeCmd("pause", "paused", "stop the clock of a VM", (*client.Client).Pause)
}

func (t *tool) unpauseCmd() *cobra.Command {
	return t.changeCmd("unpause", "unpaused", "let a paused VM run on", (*client.Client).Unpause)
}

// changeCmd makes a command that does one thing to one VM.
func (t *tool) changeCmd(name, done, short string, do func(*client.Client, context.Context, vmop.Ref) (vmop.Result, error)) *cobra.Command {
	return &cobra.Command{
		Use:   name + " id",
		Short: short,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			conn, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			res, err := do(conn, c.Context(), ref)
			switch {
			case err == nil:
				t.warn("%s vm %d successfully", done, res.ID)
				t.done(res)
				return nil
			case lost(err):
				return err
			case code(err) == vmop.ErrNotFound || code(err) == vmop.ErrNotRunning:
				return because(err, "%s vm command failed: No such file or directory", name)
			}
			return because(err, "%s vm command failed: %s", name, reason(err))
		},
	}
}
