package cmd

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vmd/internal/vmop"
)

// candidate is what a word can become.
type candidate struct{ word, about string }

// files stands for the names of files, which the shell knows better.
var files = []candidate{{word: ":files"}}

// completer finds candidates.
type completer struct {
	root *cobra.Command
	list func() []vmop.VM
}

// complete returns what the last of words, those behind vmctl, can become.
func (k *completer) complete(words []string) []candidate {
	last := words[len(words)-1]
	words = words[:len(words)-1]
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		switch valued := words[0] == "--snmp-config" || isHosts(words[0]); {
		case !valued:
			words = words[1:]
		case len(words) == 1:
			return globalValue(words[0])
		default:
			words = words[2:]
		}
	}
	if len(words) == 0 || words[0] == "help" && len(words) == 1 {
		return k.commands(last)
	}
	name, err := resolve(k.root, words[0])
	if err != nil {
		return nil
	}
	c, _, err := k.root.Find([]string{name})
	if err != nil {
		return nil
	}
	return k.argument(c, words[1:], last)
}

// isHosts reports whether w is one of the options in front of the command that
// ends with an H: then its value is the next word.
func isHosts(w string) bool {
	return !strings.HasPrefix(w, "--") && strings.HasSuffix(w, "H") && strings.Trim(w, "-vH") == ""
}

// globalValue completes the value of an option before the command.
func globalValue(option string) []candidate {
	if isHosts(option) {
		return nil // a host's name
	}
	return files
}

func (k *completer) commands(prefix string) []candidate {
	all := []candidate{{"help", "list the commands, or the options of one"}}
	for _, c := range k.root.Commands() {
		all = append(all, candidate{c.Name(), c.Short})
	}
	return matching(all, prefix)
}

// argument completes an argument of c behind others.
func (k *completer) argument(c *cobra.Command, before []string, last string) []candidate {
	if opt, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(opt, "--") {
		if f := c.Flags().Lookup(opt[2:]); f != nil {
			return prefixed(opt+"=", matching(k.values(c, f), value))
		}
		return nil
	}
	operands, ended := 0, false
	for i := 0; i < len(before); i++ {
		w := before[i]
		switch {
		case ended || len(w) < 2 || w[0] != '-':
			operands++
		case w == "--":
			ended = true
		default:
			if f := wantsValue(c, w); f != nil {
				if i++; i == len(before) {
					return matching(k.values(c, f), last)
				}
			}
		}
	}
	if !ended && strings.HasPrefix(last, "-") {
		return matching(options(c), last)
	}
	return matching(k.operand(c, operands), last)
}

// wantsValue returns the option in w whose value is the next word, or nil.
func wantsValue(c *cobra.Command, w string) *pflag.Flag {
	var f *pflag.Flag
	if long, ok := strings.CutPrefix(w, "--"); ok {
		f = c.Flags().Lookup(long)
	} else {
		for i := 1; i < len(w); i++ { // letters in a row; one with a value ends it
			f = c.Flags().ShorthandLookup(w[i : i+1])
			if f == nil || f.NoOptDefVal == "" && i < len(w)-1 {
				return nil
			}
		}
	}
	if f == nil || f.NoOptDefVal != "" {
		return nil
	}
	return f
}

func options(c *cobra.Command) []candidate {
	var all []candidate
	if c.DisableFlagParsing {
		return nil
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		about := strings.ReplaceAll(f.Usage, "`", "")
		switch {
		case f.Hidden:
		case f.Shorthand != "":
			all = append(all, candidate{"-" + f.Shorthand, about})
			fallthrough
		default:
			all = append(all, candidate{"--" + f.Name, about})
		}
	})
	return all
}

// values are what an option of c can have.
func (k *completer) values(c *cobra.Command, f *pflag.Flag) []candidate {
	switch c.Name() + " " + f.Name {
	case "start boot", "start initrd", "start cdrom", "start disk", "create base", "create input", "receive disk":
		return files
	case "start boot-device":
		return plainWords("disk", "cdrom", "net")
	case "start template":
		return k.vms(func(*vmop.VM) bool { return true })
	case "wait for":
		return plainWords(waitWords...)
	case "stats sort":
		return plainWords("cpu", "exits", "disk", "net", "memory", "name")
	}
	return nil
}

// operand are what operand n of c can be.
func (k *completer) operand(c *cobra.Command, n int) []candidate {
	if n > 0 {
		return nil
	}
	switch c.Name() {
	case "create", "load":
		return files
	case "log":
		return plainWords("brief", "verbose")
	case "reset":
		return plainWords("all", "switches", "vms")
	case "completion":
		return plainWords("bash", "fish", "zsh")
	case "start", "receive":
		return k.vms(func(v *vmop.VM) bool { return v.PID == 0 })
	case "console", "pause", "send", "stats", "stop":
		return k.vms(func(v *vmop.VM) bool { return v.PID != 0 })
	case "unpause":
		return k.vms(func(v *vmop.VM) bool { return v.State == vmop.Paused })
	case "restart", "show", "status", "wait":
		return k.vms(func(*vmop.VM) bool { return true })
	}
	return nil
}

// vms are the names of the VMs that fit.
func (k *completer) vms(fit func(*vmop.VM) bool) []candidate {
	var all []candidate
	vms := k.list()
	for i := range vms {
		if fit(&vms[i]) {
			all = append(all, candidate{plain(vms[i].Name), vms[i].State.String()})
		}
	}
	return all
}

func plainWords(words ...string) []candidate {
	var all []candidate
	for _, w := range words {
		all = append(all, candidate{word: w})
	}
	return all
}

func matching(all []candidate, prefix string) []candidate {
	return slices.DeleteFunc(slices.Clone(all), func(c candidate) bool {
		return c.word != files[0].word && !strings.HasPrefix(c.word, prefix)
	})
}

func prefixed(prefix string, all []candidate) []candidate {
	for i := range all {
		if all[i].word != files[0].word {
			all[i].word = prefix + all[i].word
		}
	}
	return all
}

// completePatience is how long a person who has typed a tab waits for vmd.
const completePatience = 300 * time.Millisecond

// knownVMs asks vmd for all VMs. Whatever goes wrong, there are none.
func (t *tool) knownVMs() []vmop.VM {
	ctx, cancel := context.WithTimeout(context.Background(), completePatience)
	defer cancel()
	c, err := t.dial(ctx)
	if err != nil {
		return nil
	}
	defer c.Close()
	vms, err := c.List(ctx, vmop.ListRequest{})
	if err != nil {
		return nil
	}
	return vms
}
