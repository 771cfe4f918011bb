package cmd

import (
	"strings"

	"github.com/spf13/cobra"

	"vmd/internal/nearest"
)

// ours are the commands that OpenBSD's vmctl does not have. A short form that
// is unique without them stays what it was.
var ours = map[string]bool{"completion": true, "restart": true, "stats": true}

// resolve finds the command that word is a prefix of.
func resolve(root *cobra.Command, word string) (string, error) {
	var theirs, extra []string
	for _, c := range root.Commands() {
		name := c.Name()
		switch {
		case name == word:
			return name, nil
		case !strings.HasPrefix(name, word):
		case ours[name]:
			extra = append(extra, name)
		default:
			theirs = append(theirs, name)
		}
	}
	if len(theirs) == 0 {
		theirs = extra
	}
	switch len(theirs) {
	case 0:
		return "", &usageError{text: "unknown argument: " + word, next: commandHint(root, word)}
	case 1:
		return theirs[0], nil
	}
	if word == "" {
		theirs = nil
	}
	return "", &usageError{text: "ambiguous argument: " + word, next: oneOf(theirs)}
}

// others are words that people know from elsewhere for what a command does.
var others = map[string]string{
	"attach": "console", "connect": "console", "tty": "console",
	"boot": "start", "run": "start", "up": "start",
	"clone": "start -t", "define": "load", "new": "create", "mkdisk": "create",
	"destroy": "stop -f", "kill": "stop -f", "terminate": "stop -f",
	"down": "stop", "halt": "stop", "poweroff": "stop", "shutdown": "stop",
	"freeze": "pause", "suspend": "pause", "continue": "unpause", "resume": "unpause", "thaw": "unpause",
	"info": "status -v", "inspect": "status -v", "list": "status", "ls": "status", "ps": "status",
	"migrate": "send", "move": "send", "save": "send",
	"reboot": "restart", "restore": "receive", "top": "stats", "monitor": "stats",
}

// commandHint says which command a word that is none may have been meant for.
func commandHint(root *cobra.Command, word string) string {
	meant := others[word]
	if meant == "" {
		var names []string
		for _, c := range root.Commands() {
			names = append(names, c.Name())
		}
		meant = nearest.Word(word, names)
	}
	if meant == "" {
		return listHint
	}
	return "did you mean " + meant + "?"
}

// listHint is for those who have no command yet.
const listHint = progName + " help lists the commands"

// oneOf says which commands begin with what was typed.
func oneOf(names []string) string {
	if len(names) == 0 {
		return listHint
	}
	last := len(names) - 1
	return "did you mean " + strings.Join(names[:last], ", ") + " or " + names[last] + "?"
}
