package cmd

import (
	"context"
	"fmt"
	"net"
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
			ref, err := t.oneRef(c, args)
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

// attach connects the tool's streams to a console until one side ends. A guest
// that resets is not the end.
func (t *tool) attach(ctx context.Context, c *client.Client, o consoleOptions) error {
	pid := processOf(ctx, c, o.vm)
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
	c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tty, err := openTerminal(t.in)
	if err != nil {
		stream.Close()
		return failf("failed to open the console: %s", strerror(err))
	}
	vm := vmop.Ref{ID: res.ID}
	again := &reopening{t: t, o: o, pid: pid, vm: vm}
	guest := newLine(stream, tty != nil, func() net.Conn {
		conn := again.reopen(ctx)
		if conn != nil && tty != nil {
			fmt.Fprintf(t.out, "\r\n[connected again]\r\n")
		}
		return conn
	})
	defer guest.Close()
	s := &session{
		guest: guest, in: t.in, out: t.out, tty: tty,
		readOnly: o.readOnly, linger: lingerQuiet,
		sendBreak: func() error { return t.sendBreak(ctx, vm) },
	}
	greeting := fmt.Sprintf("Connected to %s (speed 115200)", plain(res.TTY))
	if tty != nil {
		greeting += "\r\n(~. leaves, ~? says what else there is)"
	}
	return s.run(greeting)
}

// processOf is the process of the VM that ref names; 0 if it cannot be found
// out.
func processOf(ctx context.Context, c *client.Client, ref vmop.Ref) int {
	vms, err := c.List(ctx, vmop.ListRequest{VM: ref})
	if err != nil || len(vms) != 1 {
		return 0
	}
	return vms[0].PID
}

// sendBreak sends a BREAK over a connection of its own: a session outlives a
// restart of vmd.
func (t *tool) sendBreak(ctx context.Context, vm vmop.Ref) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Break(ctx, vm); err != nil {
		return failf("%s", reason(err))
	}
	return nil
}
