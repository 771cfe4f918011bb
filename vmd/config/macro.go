package config

import (
	"fmt"
	"strings"
)

// macro is a name and the text it stands for.
type macro struct {
	name, value string
	permanent   bool // from the command line: no file changes it
	used        bool
	file        string
	line        int
}

// macros is the table that a file and all it includes share.
type macros struct {
	byName map[string]*macro
	order  []*macro // as defined; one that was redefined stands last
}

// define sets a macro. The later definition wins, except over the command
// line's.
func (m *macros) define(n *macro) {
	if old := m.byName[n.name]; old != nil {
		if old.permanent && !n.permanent {
			return
		}
		old.name = "" // forgotten
	}
	if m.byName == nil {
		m.byName = make(map[string]*macro)
	}
	m.byName[n.name] = n
	m.order = append(m.order, n)
}

// use returns the value of a macro.
func (m *macros) use(name string) (string, bool) {
	n := m.byName[name]
	if n == nil {
		return "", false
	}
	n.used = true
	return n.value, true
}

// defineOption takes name=value from the command line. It splits at the first
// "=": a name has none.
func (m *macros) defineOption(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return fmt.Errorf("macro %s on the command line is ignored: it is not name=value", clip(s))
	}
	if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' && r != '\t' }); i >= 0 || len(value) > maxToken {
		return fmt.Errorf("macro %s on the command line is ignored: its value is too long or has control bytes", clip(name))
	}
	m.define(&macro{name: name, value: value, permanent: true})
	return nil
}

// unused returns a warning for each macro that was never used.
func (m *macros) unused() []Message {
	var out []Message
	for _, n := range m.order {
		if n.name != "" && !n.used {
			out = append(out, Message{File: n.file, Line: n.line, Text: fmt.Sprintf("macro %s is not used", clip(n.name))})
		}
	}
	return out
}
