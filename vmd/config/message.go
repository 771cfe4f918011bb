package config

import (
	"fmt"
	"strings"
)

// Message is one finding about a file.
type Message struct {
	File string
	Line int // 0 when it is about the whole file
	Text string
}

// String returns "file:line: text".
func (m Message) String() string {
	switch {
	case m.File == "":
		return m.Text
	case m.Line == 0:
		return m.File + ": " + m.Text
	}
	return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Text)
}

// Error is all that is wrong with a configuration. Warnings are what Load had
// to say besides.
type Error struct {
	Messages []Message
	Warnings []Message
}

// Error returns one line for each message.
func (e *Error) Error() string {
	var b strings.Builder
	for i, m := range e.Messages {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(m.String())
	}
	return b.String()
}

// maxMessages bounds what a file can make vmd say.
const maxMessages = 100

// messages is a list that stops growing at maxMessages.
type messages []Message

func (l *messages) add(m Message) {
	if len(*l) < maxMessages {
		*l = append(*l, m)
	} else if len(*l) == maxMessages {
		*l = append(*l, Message{File: m.File, Line: m.Line, Text: "too many messages: the others are left out"})
	}
}

// failure is an error with the place it is about. Its text is complete: see
// parser.fail.
type failure struct{ Message }

func (f *failure) Error() string { return f.Text }
