package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// The commands that are about vmd itself. They take no options.

func (t *tool) loadCmd() *cobra.Command {
	return t.daemonCmd("load filename", "add the definitions of a file", 1, func(args []string) (request, bool) {
		return func(ctx context.Context, c *client.Client) error { return load(ctx, c, args[0]) }, true
	})
}

// load has vmd read a file. vmd has another working directory.
func load(ctx context.Context, c *client.Client, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return failf("%s: %s", path, strerror(err))
	}
	if _, err := os.Stat(abs); err != nil {
		return failf("%s: %s", path, strerror(err))
	}
	return c.Load(ctx, abs)
}

func (t *tool) reloadCmd() *cobra.Command {
	return t.daemonCmd("reload", "read the configuration again", 0, func([]string) (request, bool) {
		return func(ctx context.Context, c *client.Client) error { return c.Reload(ctx) }, true
	})
}

func (t *tool) resetCmd() *cobra.Command {
	return t.daemonCmd("reset [all | switches | vms]", "forget VMs and switches", -1, func(args []string) (request, bool) {
		r := vmop.ResetRequest{VMs: true, Switches: true}
		if len(args) == 1 {
			switch strings.ToLower(args[0]) {
			case "all":
			case "switches":
				r.VMs = false
			case "vms":
				r.Switches = false
			default:
				return nil, false
			}
		}
		return func(ctx context.Context, c *client.Client) error { return c.Reset(ctx, r) }, len(args) <= 1
	})
}

func (t *tool) logCmd() *cobra.Command {
	return t.daemonCmd("log [brief | verbose]", "set how much vmd logs", 1, func(args []string) (request, bool) {
		word := strings.ToLower(args[0])
		brief := strings.HasPrefix("brief", word)
		if word == "" || !brief && !strings.HasPrefix("verbose", word) {
			return nil, false
		}
		return func(ctx context.Context, c *client.Client) error { return c.Log(ctx, !brief) }, true
	})
}

// request asks vmd for something.
type request func(context.Context, *client.Client) error

// daemonCmd makes a command with operands operands (-1: any number) that parse
// understands.
func (t *tool) daemonCmd(use, short string, operands int, parse func(args []string) (request, bool)) *cobra.Command {
	return &cobra.Command{
		Use:                use,
		Short:              short,
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
				t.help(c)
				return nil
			}
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
			if operands >= 0 && len(args) != operands {
				return &usageError{cmd: c}
			}
			do, ok := parse(args)
			if !ok {
				return &usageError{cmd: c}
			}
			conn, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			err = do(c.Context(), conn)
			var e *client.Error
			if errors.As(err, &e) && e.Code == vmop.ErrConfig && e.Detail != "" {
				// FILE:LINE: what is wrong, a line each
				detail := strings.TrimRight(plain(e.Detail), "\n")
				fmt.Fprintln(t.err, detail)
				t.warn("command failed")
				t.cause = because(err, "command failed: %s", detail)
				return exit(1)
			}
			return commandFailed(err)
		},
	}
}

// commandFailed is the message for an answer other than yes to a request
// without a message of its own.
func commandFailed(err error) error {
	if code(err) == vmop.OK {
		return err
	}
	return because(err, "command failed: %s", reason(err))
}
