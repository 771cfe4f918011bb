package cmd

import (
	"strings"

	"github.com/spf13/cobra"
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
		return "", &usageError{text: "unknown argument: " + word}
	case 1:
		return theirs[0], nil
	}
	return "", &usageError{text: "ambiguous argument: " + word}
}
