package cmd

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// optionHelp says what an option does, by its long name, which means the same
// in each command. What stands between backquotes is what it takes.
var optionHelp = map[string]string{
	"all":         "all VMs that run",
	"base":        "`image` of which the new one holds the differences",
	"boot":        "boot the kernel in the file `path`",
	"boot-device": "boot from `device`: disk, cdrom or net",
	"cdrom":       "insert the ISO image `path`",
	"cmdline":     "give `text` to the kernel",
	"confirm":     "each end tells the other how it went",
	"console":     "connect to the console after starting",
	"cpus":        "`number` of processors",
	"disk":        "a disk image, `path`; up to four times",
	"for":         "wait for `state`: running, stopped or crashed",
	"force":       "do not ask the guest",
	"initrd":      "give the kernel the initial RAM disk `path`",
	"input":       "copy the contents of `image`",
	"interfaces":  "have at least `number` network interfaces",
	"interval":    "`seconds` from round to round",
	"json":        "for programs",
	"local":       "add an interface between host and guest",
	"max-pause":   "`ms` that the guest may stand still",
	"memory":      "memory, a `size` such as 512M",
	"no-replay":   "leave out what was written before",
	"read-only":   "nothing that is typed reaches the guest",
	"rounds":      "`number` of rounds",
	"running":     "only VMs that run",
	"size":        "`size` of the disk, such as 10G",
	"sort":        "by `column`: cpu, exits, disk, net, memory or name",
	"switch":      "add an interface in the switch `name`",
	"template":    "make it an instance of the VM `name`",
	"timeout":     "wait no longer than `time`, such as 90 or 2m",
	"verbose":     "a paragraph for each, with all there is to say",
	"wait":        "wait until it has stopped",
	"with-disks":  "send what is on the disks, too",
}

// describe gives each option of c its line of help.
func describe(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = optionHelp[f.Name] })
}

// help prints what there is to say about c.
func (t *tool) help(c *cobra.Command) {
	fmt.Fprintf(t.out, "%s\n%s\n", usageLine(c), c.Short)
	if options := c.Flags().FlagUsages(); options != "" {
		fmt.Fprintf(t.out, "\n%s", options)
	}
}

// helpOn prints all commands, or what there is to say about one.
func (t *tool) helpOn(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		t.helpAll(root)
		return nil
	}
	name, err := resolve(root, args[0])
	if err != nil {
		return err
	}
	c, _, err := root.Find([]string{name})
	if err == nil {
		t.help(c)
	}
	return err
}

func (t *tool) helpAll(root *cobra.Command) {
	fmt.Fprintf(t.out, "usage:\t%s [-v] command [arg ...]\n\n", progName)
	for _, c := range root.Commands() {
		fmt.Fprintf(t.out, "\t%-10s  %s\n", c.Name(), c.Short)
	}
	fmt.Fprintf(t.out, "\n%s help command has the options of one; more is in vmctl(8).\n", progName)
}
