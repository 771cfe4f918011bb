package cmd

import (
	_ "embed"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The scripts that shells read. Each hands the words of the command line to
// "vmctl __complete" and shows what that prints.
var (
	//go:embed completion.bash
	bashScript string
	//go:embed completion.zsh
	zshScript string
	//go:embed completion.fish
	fishScript string
)

var completionScripts = map[string]*string{"bash": &bashScript, "zsh": &zshScript, "fish": &fishScript}

func (t *tool) completionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash | zsh | fish",
		Short: "print what makes a shell complete vmctl's arguments",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || completionScripts[args[0]] == nil {
				return &usageError{cmd: c}
			}
			if _, err := io.WriteString(t.out, *completionScripts[args[0]]); err != nil {
				return failf("write error: %s", strerror(err))
			}
			return nil
		},
	}
}

// completeWord is the command that scripts call. It is no command of the table:
// no short form leads to it, and it prints no error.
const completeWord = "__complete"

// complete prints what the last of words can become: a line each, with what it
// is behind a tab. A line ":files" asks the shell for names of files.
func (t *tool) complete(words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	k := completer{root: t.root(), list: t.knownVMs}
	for _, c := range k.complete(words) {
		if c.about == "" {
			fmt.Fprintln(t.out, c.word)
			continue
		}
		fmt.Fprintf(t.out, "%s\t%s\n", c.word, c.about)
	}
	return nil
}
