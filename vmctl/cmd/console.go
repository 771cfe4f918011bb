package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

func (t *tool) consoleCmd() *cobra.Command {
	var o consoleOptions
	c := &cobra.Command{
		Use:   "console id",
		Short: "connect to a VM's console",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := oneRef(c, args)
			if err != nil {
				return err
			}
			o.vm = ref
			conn, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			return t.attach(c.Context(), conn, o)
		},
	}
	c.Flags().BoolVarP(&o.readOnly, "read-only", "r", false, "")
	c.Flags().BoolVar(&o.noReplay, "no-replay", false, "")
	return c
}

type consoleOptions struct {
	vm       vmop.Ref
	readOnly bool
	noReplay bool
}

// attach connects the tool's streams to a console until one side ends.
func (t *tool) attach(ctx context.Context, c *client.Client, o consoleOptions) error {
	stream, res, err := c.Console(ctx, vmop.ConsoleRequest{VM: o.vm, ReadOnly: o.readOnly, NoReplay: o.noReplay})
	switch code(err) {
	case vmop.OK:
		if err != nil {
			return err
		}
	case vmop.ErrNotFound, vmop.ErrNotRunning:
		return because(err, "console not found")
	default:
		return because(err, "failed to open the console: %s", reason(err))
	}
	defer stream.Close()
	s := &session{
		guest:    stream,
		in:       t.in,
		out:      t.out,
		readOnly: o.readOnly,
		linger:   lingerQuiet,
		sendBreak: func() error {
			// A connection of its own: a session outlives a restart of vmd.
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			c, err := t.dial(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Break(ctx, vmop.Ref{ID: res.ID}); err != nil {
				return failf("%s", reason(err))
			}
			return nil
		},
	}
	c.Close()
	return s.run(fmt.Sprintf("Connected to %s (speed 115200)", plain(res.TTY)))
}
