package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// maxToken bounds a token (vmd(8), parse.y: "string too long").
const maxToken = 8095

// kind is what a token is.
type kind uint8

const (
	tokEOF     kind = iota
	tokNewline      // also supplied before the end of a file
	tokWord         // unquoted; a keyword if it is reserved or expected
	tokString       // quoted: never a keyword, never a number
	tokNumber
	tokByte // one byte on its own: { } = , and strays
	tokBad  // already reported
)

// token is a piece of the file.
type token struct {
	kind kind
	text string
	num  int64 // of tokNumber
	line int
}

// is reports whether t is the byte c.
func (t token) is(c byte) bool { return t.kind == tokByte && t.text[0] == c }

// keyword reports whether t is the unquoted word w.
func (t token) keyword(w string) bool { return t.kind == tokWord && t.text == w }

// isString reports whether t is a STRING of the grammar: a quoted string, or a
// word that is not reserved.
func (t token) isString() bool {
	return t.kind == tokString || t.kind == tokWord && !reserved[t.text]
}

// describe names t in a message.
func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "the end of the file"
	case tokNewline:
		return "the end of the line"
	case tokString:
		return fmt.Sprintf("string %s", clip(t.text))
	case tokNumber:
		return "number " + clip(t.text)
	}
	return clip(t.text)
}

// clip quotes s and cuts it to a length that fits a message.
func clip(s string) string {
	if len(s) > 64 {
		return strconv.Quote(s[:61]) + "..."
	}
	return strconv.Quote(s)
}

// reserved are the words that are never a STRING unless quoted.
var reserved = map[string]bool{
	"add": true, "agentx": true, "allow": true, "boot": true, "cdrom": true,
	"context": true, "delay": true, "device": true, "disable": true,
	"disk": true, "down": true, "enable": true, "format": true, "group": true,
	"id": true, "include": true, "inet6": true, "instance": true,
	"interface": true, "interfaces": true, "lladdr": true, "local": true,
	"locked": true, "memory": true, "net": true, "owner": true,
	"parallel": true, "path": true, "prefix": true, "rdomain": true,
	"sev": true, "seves": true, "size": true, "socket": true,
	"staggered": true, "start": true, "switch": true, "up": true, "vm": true,
}

// What get returns besides bytes. Expansion marks travel through the push-back
// stack with a macro's value; they are no bytes, so that no file holds them.
const (
	eof         = -1
	startExpand = 256
	doneExpand  = 257
)

// lexer turns one file into tokens. It reads bytes through a stack that macro
// values and look-ahead are pushed back onto, because a value is read again as
// if it had been written in place.
type lexer struct {
	p         *parser
	name      string
	data      []byte
	pos       int
	line      int
	back      []int16
	expanding bool // inside a macro's value, where $ is an ordinary byte
	ended     bool // the newline before the end was supplied
	buf       []byte
}

func newLexer(p *parser, name string, data []byte) *lexer {
	return &lexer{p: p, name: name, data: data, line: 1}
}

// raw returns the next byte as it stands.
func (l *lexer) raw() int {
	for {
		c := eof
		if n := len(l.back); n > 0 {
			c = int(l.back[n-1])
			l.back = l.back[:n-1]
		} else if l.pos < len(l.data) {
			c = int(l.data[l.pos])
			l.pos++
		}
		switch c {
		case startExpand:
			l.expanding = true
		case doneExpand:
			l.expanding = false
		default:
			return c
		}
	}
}

func (l *lexer) unget(c int) {
	if c != eof {
		l.back = append(l.back, int16(c))
	}
}

// get returns the next byte outside quotes: a backslash and a newline vanish,
// another backslash vanishes alone. It does not protect what follows.
func (l *lexer) get() int {
	c := l.raw()
	for c == '\\' {
		if c = l.raw(); c != '\n' {
			break
		}
		l.line++
		c = l.raw()
	}
	if c == eof && !l.ended {
		l.ended = true
		return '\n'
	}
	return c
}

// next returns the next token. A lexical error is reported here and comes back
// as tokBad.
func (l *lexer) next() token {
	for {
		c := l.get()
		for c == ' ' || c == '\t' {
			c = l.get()
		}
		line := l.line
		if c == '#' {
			for c != '\n' && c != eof {
				c = l.get()
			}
			line = l.line
		}
		switch {
		case c == eof:
			return token{kind: tokEOF, line: line}
		case c == '\n':
			l.line++
			return token{kind: tokNewline, text: "\n", line: line}
		case c == '$' && !l.expanding:
			if !l.expand() {
				return token{kind: tokBad, text: "$", line: line}
			}
			continue
		case c == '"' || c == '\'':
			return l.quoted(c)
		case c == '-' || isDigit(c):
			return l.number(c)
		case startsWord(c):
			return l.word(c)
		}
		return token{kind: tokByte, text: string([]byte{byte(c)}), line: line}
	}
}

// expand reads a macro's name and pushes its value back.
func (l *lexer) expand() bool {
	l.buf = l.buf[:0]
	c := l.get()
	for c == '_' || isAlnum(c) {
		l.keep(c)
		c = l.get()
	}
	l.unget(c)
	value, ok := l.p.macros.use(string(l.buf))
	if !ok {
		name := string(l.buf)
		l.errorf("macro %s is not defined%s", clip(name), meant(name, slices.Sorted(maps.Keys(l.p.macros.byName))))
		return false
	}
	if !l.p.spend(len(value)) {
		l.errorf("macros expand to more than %d bytes", maxBytes)
		return false
	}
	l.unget(doneExpand)
	for i := len(value) - 1; i >= 0; i-- {
		l.unget(int(value[i]))
	}
	l.unget(startExpand)
	return true
}

// quoted reads up to the closing quote. Newlines inside are dropped; a
// backslash only protects that quote and blanks, and joins lines.
func (l *lexer) quoted(quote int) token {
	start := l.line
	l.buf = l.buf[:0]
	for {
		c := l.raw()
		switch c {
		case eof:
			l.errorf("string that began on line %d has no closing quote", start)
			return token{kind: tokBad, line: l.line}
		case quote:
			return l.finish(tokString, start)
		case '\n':
			l.line++
			continue
		case '\\':
			switch next := l.raw(); next {
			case quote, ' ', '\t':
				c = next
			case '\n':
				l.line++
				continue
			default:
				l.unget(next)
			}
		}
		l.keep(c)
	}
}

// number reads digits. If something follows that cannot end a number, they are
// the beginning of a word: 512M, 10.0.0.0/8.
func (l *lexer) number(first int) token {
	line := l.line
	l.buf = append(l.buf[:0], byte(first))
	c := l.get()
	for isDigit(c) {
		l.keep(c)
		c = l.get()
	}
	l.unget(c)
	if len(l.buf) == 1 && first == '-' {
		return token{kind: tokByte, text: "-", line: line}
	}
	if c == eof || endsNumber(c) {
		t := l.finish(tokNumber, line)
		n, err := strconv.ParseInt(t.text, 10, 64)
		if t.kind == tokNumber && err != nil {
			l.errorf("number %s is out of range", clip(t.text))
			t.kind = tokBad
		}
		t.num = n
		return t
	}
	for i := len(l.buf) - 1; i > 0; i-- {
		l.unget(int(l.buf[i]))
	}
	if first == '-' {
		return token{kind: tokByte, text: "-", line: line}
	}
	return l.word(first)
}

func (l *lexer) word(first int) token {
	line := l.line
	l.buf = append(l.buf[:0], byte(first))
	c := l.get()
	for inWord(c) {
		l.keep(c)
		c = l.get()
	}
	l.unget(c)
	return l.finish(tokWord, line)
}

// keep adds c to the token, which may exceed maxToken by one byte: finish
// notices.
func (l *lexer) keep(c int) {
	if len(l.buf) <= maxToken {
		l.buf = append(l.buf, byte(c))
	}
}

func (l *lexer) finish(k kind, line int) token {
	if len(l.buf) > maxToken {
		l.errorf("word or string is longer than %d bytes", maxToken)
		return token{kind: tokBad, line: line}
	}
	return token{kind: k, text: string(l.buf), line: line}
}

func (l *lexer) errorf(format string, args ...any) {
	l.p.report(Message{File: l.name, Line: l.line, Text: fmt.Sprintf(format, args...)})
}

func isDigit(c int) bool { return c >= '0' && c <= '9' }

func isAlnum(c int) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func startsWord(c int) bool { return isAlnum(c) || c == ':' || c == '_' || c == '/' }

// inWord is every printing character of ASCII but nine, and but the backslash
// that get removes.
func inWord(c int) bool {
	switch c {
	case '(', ')', '{', '}', '!', '=', '#', ',':
		return false
	}
	return c > ' ' && c < 0x7f
}

// endsNumber is white space of the C locale, and what may stand behind a value.
func endsNumber(c int) bool {
	switch c {
	case ' ', '\t', '\n', '\v', '\f', '\r', ')', ',', '/', '}', '=':
		return true
	}
	return false
}
