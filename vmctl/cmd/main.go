// Package cmd is the command line of vmctl(8): one file per command.
//
// Commands write to the streams they are given and return errors; report turns
// an error into text and Main into an exit status. What programs parse is kept
// to the byte, whatever else a text could say.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// progName begins every message.
const progName = "vmctl"

// tool is one run of vmctl.
type tool struct {
	hosts      []string // to ask over SNMP; none: this one's vmd
	snmpConfig string   // path; "" is the user's own

	in       io.Reader
	out, err io.Writer
	verbose  bool
	json     bool // results and errors are for a program

	cause error // of an exit whose message has been printed already

	asked vmop.Ref // the VM that the command is about
	near  *string  // see nearName; nil before somebody wanted to know
}

// Main runs vmctl with args, less the program's name, and returns its exit
// status: 0, or 1 for any failure.
func Main(args []string, in io.Reader, out, errw io.Writer) int {
	t := &tool{in: in, out: out, err: errw}
	return t.report(t.run(args))
}

func (t *tool) run(args []string) error {
	args, err := t.global(args)
	if err != nil {
		return err
	}
	if args[0] == completeWord {
		return t.complete(args[1:])
	}
	root := t.root()
	if args[0] == "help" {
		return t.helpOn(root, args[1:])
	}
	name, err := resolve(root, args[0])
	if err != nil {
		return err
	}
	if t.hosts != nil {
		return t.runFleet(name, args[1:])
	}
	root.SetArgs(append([]string{name}, args[1:]...))
	return root.ExecuteContext(context.Background())
}

// global takes the options before the command off args.
func (t *tool) global(args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			return t.needCommand(args)
		case a == "--help" || a == "-h":
			return []string{"help"}, nil
		case a == "--json":
			t.json = true
			continue
		case a == "--snmp-config" || strings.HasPrefix(a, "--snmp-config="):
			path, rest, err := optionValue(strings.TrimPrefix(a, "--snmp-config"), args)
			if err != nil {
				return nil, err
			}
			t.snmpConfig, args = path, rest
			continue
		case strings.HasPrefix(a, "--"):
			return nil, &usageError{line: "unknown option -- " + a[2:]}
		}
		for i, c := range a[1:] {
			if c == 'H' {
				list, rest, err := optionValue(a[i+2:], args)
				if err != nil {
					return nil, err
				}
				if t.hosts, err = hostList(t.hosts, list); err != nil {
					return nil, err
				}
				args = rest
				break
			}
			if c != 'v' {
				return nil, &usageError{line: fmt.Sprintf("unknown option -- %c", c)}
			}
			t.verbose = true
		}
	}
	return t.needCommand(args)
}

func (t *tool) needCommand(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, &usageError{next: listHint}
	}
	return args, nil
}

// root builds the tree of commands.
func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:               progName,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	for _, c := range []*cobra.Command{
		t.completionCmd(), t.consoleCmd(), t.createCmd(), t.loadCmd(), t.logCmd(), t.pauseCmd(), t.receiveCmd(), t.reloadCmd(),
		t.resetCmd(), t.restartCmd(), t.sendCmd(), t.showCmd(), t.startCmd(), t.statsCmd(), t.statusCmd(), t.stopCmd(), t.unpauseCmd(), t.waitCmd(),
	} {
		t.adopt(c)
		root.AddCommand(c)
	}
	return root
}

// adopt gives c what all commands have in common.
func (t *tool) adopt(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	c.Flags().SortFlags = false
	c.Flags().Bool("help", false, "")
	c.Flags().MarkHidden("help")
	if c.Args == nil {
		c.Args = cobra.ArbitraryArgs // each looks at its operands itself
	}
	describe(c)
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { t.help(c) })
	c.SetFlagErrorFunc(flagError)
}

// flagError turns what pflag says into what getopt(3) does.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp): // -h
		c.HelpFunc()(c, nil)
		return exit(0)
	case errors.As(err, &unknown):
		word := unknown.GetSpecifiedName()
		if operandOnly(c) && unknown.GetSpecifiedShortnames() != "" {
			return failf("invalid id: -%s", unknown.GetSpecifiedShortnames())
		}
		return &usageError{cmd: c, line: "unknown option -- " + word}
	case errors.As(err, &missing):
		return &usageError{cmd: c, line: "option requires an argument -- " + missing.GetSpecifiedName()}
	case errors.As(err, &invalid):
		return invalid.Unwrap()
	}
	return &usageError{cmd: c, line: err.Error()}
}

// operandOnly reports whether c had no options in any release of OpenBSD: what
// looks like one there is an operand.
func operandOnly(c *cobra.Command) bool {
	switch c.Name() {
	case "console", "pause", "receive", "send", "unpause", "wait":
		return true
	}
	return false
}

// dial connects to vmd.
func (t *tool) dial(ctx context.Context) (*client.Client, error) {
	path := client.SocketPath()
	c, err := client.Dial(ctx, path)
	if err != nil {
		return nil, &dialError{path, err}
	}
	return c, nil
}

// warn prints a message that is not the reason to end.
func (t *tool) warn(format string, args ...any) {
	fmt.Fprintf(t.err, progName+": "+format+"\n", args...)
}

// debug prints a message for -v.
func (t *tool) debug(format string, args ...any) {
	if t.verbose {
		t.warn(format, args...)
	}
}
