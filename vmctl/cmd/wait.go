package cmd

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"vmd/internal/vmop"
)

// waitWords are the states that wait --for takes.
var waitWords = []string{"running", "stopped", "crashed"}

var waitFor = map[string]vmop.WaitFor{
	"running": vmop.WaitRunning, "stopped": vmop.WaitStopped, "crashed": vmop.WaitCrashed,
}

func (t *tool) waitCmd() *cobra.Command {
	var timeout seconds
	var what string
	c := &cobra.Command{
		Use:   "wait id",
		Short: "wait until a VM has stopped",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			return t.wait(c.Context(), vmop.WaitRequest{VM: ref, Timeout: uint32(timeout), For: waitFor[what]}, what)
		},
	}
	c.Flags().Var(&timeout, "timeout", "")
	add(c.Flags(), "for", "", func(word string) error {
		if !slices.Contains(waitWords, word) {
			return failf("cannot wait for %s", word)
		}
		what = word
		return nil
	})
	return c
}

// wait waits for the end of a VM, or for the state that what is the word for.
func (t *tool) wait(ctx context.Context, r vmop.WaitRequest, what string) error {
	conn, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	t.announce("waiting for", r.VM)
	res, err := conn.Wait(ctx, r)
	if r.For == vmop.WaitEnd || err != nil {
		return t.stopped(res, err, stopOptions{wait: true})
	}
	fmt.Fprintf(t.err, "%s vm %d\n", what, res.ID)
	t.done(res)
	return nil
}
