package cmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

func (t *tool) restartCmd() *cobra.Command {
	var o stopOptions
	var console bool
	c := &cobra.Command{
		Use:   "restart [-cf] id",
		Short: "stop a VM and start it again",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			o.wait = true
			if err := t.stopForRestart(c.Context(), ref, o); err != nil {
				return err
			}
			return t.start(c.Context(), ref, &startOptions{console: console})
		},
	}
	c.Flags().BoolVarP(&o.force, "force", "f", false, "")
	c.Flags().BoolVarP(&console, "console", "c", false, "")
	c.Flags().Var(&o.timeout, "timeout", "")
	return c
}

// stopForRestart stops a VM, if it runs, that can be started again.
func (t *tool) stopForRestart(ctx context.Context, ref vmop.Ref, o stopOptions) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	vms, err := list(ctx, c, vmop.ListRequest{VM: ref})
	if err != nil {
		return err
	}
	switch {
	case len(vms) != 1:
		return startFailed("start", &client.Error{Request: vmop.Start, Result: vmop.Result{Code: vmop.ErrNotFound}})
	case !vms[0].Persistent:
		return errors.New("cannot restart a vm that is not in the configuration: it would be forgotten when stopped")
	case vms[0].PID == 0:
		return nil
	}
	t.announce("stopping", ref)
	res, err := c.Stop(ctx, o.request(ref))
	return t.stopped(res, err, o)
}
