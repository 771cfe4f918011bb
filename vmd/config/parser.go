package config

import (
	"errors"
	"fmt"
	"strings"

	"vmd/internal/nearest"
)

// parser holds one Load. Each rule of the grammar is a method that takes its
// tokens and returns an error; only statement reports errors and finds the way
// back, so a bad block says what is wrong once.
type parser struct {
	source
	fs    FS
	users *cachedUsers
	base  *Config
	cfg   *Config

	macros macros
	open   []string // real paths of the files being read, outermost first
	files  int      // read so far
	budget int      // bytes that may still be read or expanded

	errors   messages
	warnings messages
	mute     bool // skipping: further errors are consequences
	inVM     bool // between the braces of a VM

	// Blocks that had an error: what refers to them must not add another.
	badVMs, badSwitches map[string]bool
}

// source is the parser's place in one file.
type source struct {
	lex   *lexer
	ahead []token // peeked at, the next one first; at most two
	last  token   // the one taken last
	depth int     // braces open
}

// peek returns the next token and leaves it.
func (p *parser) peek() token { return p.peekAt(0) }

// peekAt returns the token behind n others and leaves them all.
func (p *parser) peekAt(n int) token {
	for len(p.ahead) <= n {
		p.ahead = append(p.ahead, p.lex.next())
	}
	return p.ahead[n]
}

// take returns the next token and goes past it.
func (p *parser) take() token {
	t := p.peek()
	p.ahead, p.last = append(p.ahead[:0], p.ahead[1:]...), t
	switch {
	case t.is('{'):
		p.depth++
	case t.is('}') && p.depth > 0:
		p.depth--
	}
	return t
}

// accept takes the next token if it is the keyword w.
func (p *parser) accept(w string) bool {
	if p.peek().keyword(w) {
		p.take()
		return true
	}
	return false
}

// expect takes the keyword w.
func (p *parser) expect(w string) error {
	if p.accept(w) {
		return nil
	}
	return p.unexpected(fmt.Sprintf("%q", w))
}

// newlines goes past any number of line ends and reports whether there was one.
func (p *parser) newlines() bool {
	found := false
	for p.peek().kind == tokNewline {
		p.take()
		found = true
	}
	return found
}

// str takes exactly one STRING. What says what it is.
func (p *parser) str(what string) (string, error) {
	if !p.peek().isString() {
		return "", p.unexpected(what)
	}
	return p.take().text, nil
}

// moreString reports whether a STRING is next that goes with what stands before
// it, and is not the word of an extension that begins the next option.
func (p *parser) moreString() bool {
	return p.peek().isString() && !(p.inVM && p.atExtension())
}

// strs takes one or more adjacent STRINGs, joined.
func (p *parser) strs(what string) (string, error) {
	s, err := p.str(what)
	if err != nil || !p.moreString() {
		return s, err
	}
	var b strings.Builder
	b.WriteString(s)
	for p.moreString() {
		if b.WriteString(p.take().text); b.Len() > maxToken {
			return "", p.fail("%s is longer than %d bytes", what, maxToken)
		}
	}
	return b.String(), nil
}

// number takes a NUMBER from min to max.
func (p *parser) number(what string, min, max int64) (int64, error) {
	t := p.peek()
	if t.kind != tokNumber {
		return 0, p.unexpected(what + ", a number")
	}
	p.take()
	if t.num < min || t.num > max {
		return 0, p.fail("%s %d is out of range: %d to %d", what, t.num, min, max)
	}
	return t.num, nil
}

// fail makes an error about the token taken last.
func (p *parser) fail(format string, args ...any) error {
	return &failure{Message{File: p.lex.name, Line: p.last.line, Text: fmt.Sprintf(format, args...)}}
}

// failAt makes an error about an earlier line.
func (p *parser) failAt(line int, format string, args ...any) error {
	return &failure{Message{File: p.lex.name, Line: line, Text: fmt.Sprintf(format, args...)}}
}

// errReported is the error of a rule that met a token which the lexer has
// complained about.
var errReported = errors.New("reported")

// unexpected makes a syntax error about the next token. It names the word of
// words that is near.
func (p *parser) unexpected(wanted string, words ...string) error {
	t := p.peek()
	if t.kind == tokBad {
		return errReported
	}
	text := fmt.Sprintf("syntax error: expected %s, found %s", wanted, t.describe())
	if t.kind == tokWord {
		text += meant(t.text, words)
	}
	return p.failAt(t.line, "%s", text)
}

// meant is the end of a message about a word for which one of known is near.
func meant(word string, known []string) string {
	if w := nearest.Word(word, known); w != "" {
		return fmt.Sprintf(": did you mean %s?", clip(w))
	}
	return ""
}

// report adds an error.
func (p *parser) report(m Message) {
	if !p.mute {
		p.errors.add(m)
	}
}

func (p *parser) warn(m Message) { p.warnings.add(m) }

// warnf warns about the token taken last.
func (p *parser) warnf(format string, args ...any) {
	p.warn(Message{File: p.lex.name, Line: p.last.line, Text: fmt.Sprintf(format, args...)})
}

// parseFile reads statements up to the end of the current file.
func (p *parser) parseFile() {
	for {
		p.newlines()
		if p.peek().kind == tokEOF {
			return
		}
		if err := p.statement(); err != nil {
			p.reportError(err)
			p.recover()
		}
	}
}

// reportError adds what a rule returned, unless it has been reported.
func (p *parser) reportError(err error) {
	var f *failure
	if errors.As(err, &f) {
		p.report(f.Message)
	}
}

// recover skips to the end of the line, and to the end of the block if the
// error was inside one, or its brace stands on a line of its own. A "vm" at the
// beginning of a line begins no option: the block before it lacks its brace.
func (p *parser) recover() {
	p.mute = true
	defer func() { p.mute = false }()
	for {
		if p.last.kind == tokNewline && p.depth > 0 && p.peek().keyword("vm") {
			p.depth = 0
			return
		}
		switch p.take().kind {
		case tokEOF:
			return
		case tokNewline:
			if p.depth > 0 {
				break
			}
			p.mute = false // what comes is looked at for the first time
			if !p.peek().is('{') {
				return
			}
			p.mute = true
		}
	}
}

// nextOption skips to the option on the line after one that was wrong, in the
// block whose options are depth braces deep. It returns false if the block ends
// before that, or lacks its brace.
func (p *parser) nextOption(depth int) bool {
	p.mute = true
	defer func() { p.mute = false }()
	for !p.unclosed() {
		switch p.take().kind {
		case tokByte:
			if p.depth < depth {
				return false
			}
		case tokNewline:
			if p.depth > depth {
				break
			}
			p.mute = false // as in recover
			p.newlines()
			return !p.unclosed()
		}
	}
	return false
}

// unclosed reports whether what follows cannot be in a block: see recover.
func (p *parser) unclosed() bool {
	t := p.peek()
	return t.kind == tokEOF || p.last.kind == tokNewline && t.keyword("vm")
}

// statement parses one statement of the top level with its line end.
func (p *parser) statement() error {
	t := p.peek()
	switch {
	case t.keyword("include"):
		return p.includeStatement()
	case t.isString():
		return p.macroStatement()
	case t.keyword("vm"):
		return p.line(p.vmStatement)
	case t.keyword("switch"):
		return p.line(p.switchStatement)
	case t.keyword("local"):
		return p.line(p.localStatement)
	case t.keyword("socket"):
		return p.line(p.socketStatement)
	case t.keyword("agentx"):
		return p.line(p.agentxStatement)
	case t.keyword("staggered"):
		return p.line(p.staggeredStatement)
	}
	return p.unexpected("a statement", statements...)
}

// statements are the words that a statement begins with.
var statements = []string{"agentx", "include", "local", "socket", "staggered", "switch", "vm"}

// line parses a statement and the end of its line.
func (p *parser) line(rule func() error) error {
	p.take()
	if err := rule(); err != nil {
		return err
	}
	return p.endLine()
}

func (p *parser) endLine() error {
	if t := p.peek(); t.kind != tokNewline && t.kind != tokEOF {
		return p.unexpected("the end of the line")
	}
	p.take()
	return nil
}

// includeStatement is: include STRING…
func (p *parser) includeStatement() error {
	line := p.take().line
	name, err := p.strs("a file name")
	if err != nil {
		return err
	}
	if err := p.endLine(); err != nil {
		return err
	}
	if err := p.includeFile(name); err != nil {
		// The line end is taken: there is nothing to skip.
		var f *failure
		if errors.As(err, &f) {
			f.Line = line
			p.report(f.Message)
		}
	}
	return nil
}

// macroStatement is: STRING = STRING
func (p *parser) macroStatement() error {
	t := p.take()
	if !p.peek().is('=') {
		return p.failAt(t.line, "syntax error: %s is not a statement%s", clip(t.text), meant(t.text, statements))
	}
	p.take()
	if p.peek().kind == tokNumber {
		return p.unexpected("a string (a number must be quoted)")
	}
	value, err := p.str("the value of a macro, a string")
	if err != nil {
		return err
	}
	if t.text == "" || strings.ContainsAny(t.text, " \t\v\f\r") {
		return p.fail("macro name %s is empty or has white space in it", clip(t.text))
	}
	p.macros.define(&macro{name: t.text, value: value, file: p.lex.name, line: t.line})
	return p.endLine()
}

// block parses { option … } with rule for each option. The first option may be
// followed by anything; each further one ends with its line, or the block. An
// option that is wrong is reported, and those after it are looked at too.
func (p *parser) block(rule func() error) error {
	begin := p.peek().line
	if err := p.openBlock(); err != nil {
		return err
	}
	var bad error
	for first, depth := true, p.depth; ; first = false {
		switch {
		case first:
		case p.peek().is('}'):
			p.take()
			return bad
		case p.unclosed():
			return p.failAt(p.peek().line, "syntax error: the block that begins on line %d has no \"}\"", begin)
		}
		err := rule()
		if err == nil && !p.newlines() && !first && !p.peek().is('}') {
			err = p.unexpected("the end of the line or \"}\"")
		}
		if err == nil {
			continue
		}
		p.reportError(err)
		bad = errReported
		if !p.nextOption(depth) {
			return bad
		}
	}
}

// braces parses { option … } where white space is all that parts the options.
func (p *parser) braces(rule func() error) error {
	if err := p.openBlock(); err != nil {
		return err
	}
	for {
		if err := rule(); err != nil {
			return err
		}
		p.newlines()
		if p.peek().is('}') {
			p.take()
			return nil
		}
	}
}

// openBlock takes "{", which must not stand on a line of its own, and checks
// that the block is not empty.
func (p *parser) openBlock() error {
	if !p.peek().is('{') {
		if p.peek().kind == tokNewline {
			return p.unexpected("\"{\" on this line")
		}
		return p.unexpected("\"{\"")
	}
	p.take()
	p.newlines()
	if p.peek().is('}') {
		return p.failAt(p.peek().line, "syntax error: a block needs at least one option")
	}
	return nil
}
