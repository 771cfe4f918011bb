package config_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// shownElsewhere are the messages that no golden file can have, with the test
// that has them.
var shownElsewhere = map[string]string{
	"a symbolic link of user %d leads to a file that is not that user's": "TestRealpathOfAnothersLink: it takes root and a file system",
	"reported": "errReported: the lexer has said what is wrong, and nobody prints this",
	"syntax error: expected user id, a number, found ": "owner looks first whether it is a number",
	"unknown": "ErrUnknown: the fake users return it, as those of the host do",
}

// TestEveryMessageIsGolden finds what the package can say in its source and
// looks for each in testdata/*.ok: a new message needs a line of a golden file
// that provokes it.
func TestEveryMessageIsGolden(t *testing.T) {
	oks, err := filepath.Glob("testdata/*.ok")
	if err != nil {
		t.Fatal(err)
	}
	var golden strings.Builder
	for _, name := range oks {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		golden.Write(b)
	}
	found := collectMessages(t)
	if len(found) < 150 {
		t.Errorf("%d messages in the source: some are not found", len(found))
	}
	for text := range shownElsewhere {
		if found[text] == "" {
			t.Errorf("%q is said nowhere any more", text)
		}
	}
	for text, where := range found {
		if shownElsewhere[text] != "" {
			continue
		}
		if !pattern(text).MatchString(golden.String()) {
			t.Errorf("%s: %q is in no golden file", where, text)
		}
	}
}

var verb = regexp.MustCompile(`%(%|[0-9]*[a-z])`)

// pattern is what a format prints.
func pattern(format string) *regexp.Regexp {
	var b strings.Builder
	rest := format
	for {
		i := verb.FindStringIndex(rest)
		if i == nil {
			return regexp.MustCompile(b.String() + regexp.QuoteMeta(rest))
		}
		b.WriteString(regexp.QuoteMeta(rest[:i[0]]))
		if rest[i[0]:i[1]] == "%%" {
			b.WriteString("%")
		} else {
			b.WriteString("[^\n]*")
		}
		rest = rest[i[1]:]
	}
}

// sayers has the functions that take the text of a message, the number of that
// argument, and what is said of it. %s stands for the text.
var sayers = map[string]struct {
	arg   int
	forms []string
}{
	"fail":       {0, []string{"%s"}},
	"failAt":     {1, []string{"%s"}},
	"warnf":      {0, []string{"%s"}},
	"errorf":     {0, []string{"%s"}},
	"about":      {1, []string{"%s"}},
	"New":        {0, []string{"%s"}},
	"Errorf":     {0, []string{"%s"}},
	"unexpected": {0, []string{"syntax error: expected %s, found "}},
	"str":        {0, []string{"syntax error: expected %s, found "}},
	"strs":       {0, []string{"syntax error: expected %s, found "}},
	"once":       {0, []string{"%s is given more than once"}},
	"number":     {0, []string{"syntax error: expected %s, a number, found ", "%s %%d is out of range: "}},
	"size": {0, []string{"syntax error: expected %s, a size, found ", "%s %%s: invalid argument",
		"%s %%s must be at least ", "%s %%s is too large (limit is "}},
	"duration": {0, []string{"syntax error: expected %s, seconds or a time such as 5m, found ",
		"%s %%s is not a time such as", "%s %%s is out of range: 1s to "}},
	"file": {0, []string{"syntax error: expected a path after %s, found ", "%s %%s: file does not exist",
		"%s %%s: not a regular file", "%s %%s: path is longer than "}},
}

// collectMessages returns each message of the package's source and where it is.
func collectMessages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &collector{add: func(text string, at token.Pos) { found[text] = fset.Position(at).String() }}
		ast.Inspect(f, c.visit)
	}
	return found
}

type collector struct {
	add func(text string, at token.Pos)
	fn  string // the function declared last
}

func (c *collector) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncDecl:
		c.fn = n.Name.Name
	case *ast.CallExpr:
		c.call(n)
	case *ast.KeyValueExpr: // Message{Text: …}
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Text" {
			c.text(n.Value)
		}
	case *ast.ReturnStmt: // of the functions that say why something is no name
		if slices.Contains([]string{"groupError", "bridgeError", "hint"}, c.fn) {
			c.text(n.Results[0])
		}
	}
	return true
}

func (c *collector) call(n *ast.CallExpr) {
	name := ""
	switch f := n.Fun.(type) {
	case *ast.SelectorExpr:
		name = f.Sel.Name
	case *ast.Ident:
		name = f.Name
	}
	how, ok := sayers[name]
	if !ok || len(n.Args) <= how.arg {
		return
	}
	arg, ok := literal(n.Args[how.arg])
	if !ok { // a wrapper that passes on what it was given
		return
	}
	for _, form := range how.forms {
		// "%s, a number" and the like are the wrapper's own and said of each.
		c.add(strings.ReplaceAll(strings.Replace(form, "%s", arg, 1), "%%", "%"), n.Pos())
	}
}

// text adds a literal, or the format of fmt.Sprintf.
func (c *collector) text(e ast.Expr) {
	if call, ok := e.(*ast.CallExpr); ok && len(call.Args) > 0 {
		e = call.Args[0]
	}
	if s, ok := literal(e); ok && s != "" {
		c.add(s, e.Pos())
	}
}

// literal is the value of a string, or of a sum of which a part is one: what is
// not known becomes %s.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		a, okA := literal(e.X)
		b, okB := literal(e.Y)
		if !okA {
			a = "%s"
		}
		if !okB {
			b = "%s"
		}
		return a + b, okA || okB
	}
	return "", false
}

// TestPattern: it is what the other test relies on.
func TestPattern(t *testing.T) {
	for _, c := range []struct {
		format, text string
		want         bool
	}{
		{"a %d (limit is %s) at 1%%", "a 5 (limit is 3M) at 1%", true},
		{"a %d", "b 5", false},
		{"%s is given twice", fmt.Sprintf("disk %q is given twice", "/d"), true},
		{"%s is given twice", "disk\nis given once", false},
	} {
		if got := pattern(c.format).MatchString(c.text); got != c.want {
			t.Errorf("%q of %q: %v", c.format, c.text, got)
		}
	}
}
