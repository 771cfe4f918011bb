package config

import (
	"strings"
	"testing"
)

// TestGrammar has the accepted and refused spellings of each rule. A row is
// refused when want is not empty: the first message contains it, and there is
// at most one more.
func TestGrammar(t *testing.T) {
	const vm = "vm \"v\" { disk \"/d\"\n"
	tests := []struct{ name, in, want string }{
		// The table of test vectors.
		{"one option", `vm "a" { disk "/d.img" }`, ""},
		{"second option ended by brace", "vm \"a\" { memory 1G\n disk \"/d.img\" }", ""},
		{"first option followed by another", "vm \"a\" { memory 1G disk \"/d.img\"\n }", ""},
		{"third option on the line of the second", "vm \"a\" { memory 1G disk \"/d.img\" enable\n }", `expected the end of the line or "}", found "enable"`},
		{"empty block", "vm a {\n}", "a block needs at least one option"},
		{"empty block on one line", "vm a { }", "a block needs at least one option"},
		{"brace on its own line", "vm a\n{ disk \"/d\"\n }", `expected "{" on this line, found the end of the line`},
		{"instance", "vm \"a\" { disk \"/a\" }\nvm \"a\" instance \"b\" {\n owner joe\n disk \"/b\"\n}", ""},
		{"interface without braces", vm + "interface tap switch uplink lladdr 00:11:22:33:44:55\n}", ""},
		{"comma in braces", vm + "interface { switch uplink, up }\n}", `found ","`},
		{"comma after first option", vm + "interface switch uplink, up\n}", `found ","`},
		{"comma after second option", vm + "interface switch uplink up, locked lladdr\n}", ""},
		{"prefix is a number", "local prefix 10/8", "expected an IPv4 prefix, found number \"10\""},
		{"prefix quoted", `local prefix "10/8"`, ""},
		{"prefix in full", `local prefix 10.0.0.0/8`, ""},
		{"memory in bytes, too small", vm + "memory 512\n}", "memory \"512\" must be at least 1M; it is in bytes: did you mean 512M?"},
		{"memory 512M", vm + "memory 512M\n}", ""},
		{"memory as a number", vm + "memory 536870912\n}", ""},
		{"memory macro", "mem=512M\n" + vm + "memory $mem\n}", ""},
		{"macro value is a number", "cpus=4\n", "found number \"4\""},
		{"macro value is a quoted number", "cpus=\"4\"\n" + vm + "cpus $cpus\n}", ""},
		{"macro in a path", "dir=\"/vm\"\nvm a { disk $dir \"/a.img\" }", ""},
		{"macro before more of the word", "dir=\"/vm\"\nvm a { disk $dir/a.img }", ""},
		{"owner group", vm + "owner :wheel\n}", ""},
		{"owner uid", vm + "owner 1000\n}", ""},
		{"owner quoted digits", vm + "owner \"1000\"\n}", `owner "1000": user "1000": unknown`},
		{"owner digits and group", vm + "owner 1000:1000\n}", `owner "1000:1000": user "1000": unknown`},
		{"comment swallows the next line", "# note \\\nvm \"a\" { rubbish", ""},

		// Characters to tokens.
		{"no newline at the end", `switch s { interface bridge0 }`, ""},
		{"continuation", "switch \\\n s { interface \\\nbridge0 }", ""},
		{"continuation in a word", "swi\\\ntch s { interface bridge0 }", ""},
		{"backslash does not protect a hash", "switch s { interface bridge0 } \\# comment", ""},
		{"backslash does not protect a quote", "switch \\\"s t\" { interface bridge0 }", ""},
		{"hash ends a word", "switch s { interface bridge0#comment\n}", ""},
		{"hash in quotes", `switch "s#t" { interface bridge0 }`, ""},
		{"single quotes", `switch 's' { interface 'bridge0' }`, ""},
		{"newline in quotes is dropped", "switch \"s\nt\" { interface bridge0 }", ""},
		{"adjacent strings", `switch "s" t 'u' { interface "br" idge0 }`, ""},
		{"quoted keyword is no keyword", `"switch" s { interface bridge0 }`, `"switch" is not a statement`},
		{"quoted keyword is a name", `switch "switch" { interface bridge0 }`, ""},
		{"bare keyword is no name", `switch switch { interface bridge0 }`, `expected the name of a switch, found "switch"`},
		{"quoted number is no number", `staggered start parallel "2" delay 3`, `expected parallel, a number, found string "2"`},
		{"unclosed quote", "switch \"s {\n", "string that began on line 1 has no closing quote"},
		{"number at a brace", vm + "interface { rdomain 2}\n}", ""},
		{"number at an opening brace is a word", `switch 2{ interface bridge0 }`, ""},
		{"number out of range", vm + "memory 9223372036854775808\n}", `number "9223372036854775808" is out of range`},
		{"negative number", "staggered start parallel -1 delay 3", "parallel -1 is out of range: 1 to 65535"},
		{"lone minus", "staggered start parallel - delay 3", `found "-"`},
		{"minus before a word", "staggered start parallel -1x delay 3", `found "-"`},
		{"stray byte", "@", `expected a statement, found "@"`},
		{"carriage return", "switch s { interface bridge0 }\r \n", `found "\r"`},
		{"line ends of DOS", "\ufeffswitch s {\r\n interface \"bri\r\ndge0\"\r\n\trdomain 1\r\n}\r\n", ""},
		{"byte above ASCII", "switch \xc3\xa9 { interface bridge0 }", "found \"\\xc3\""},
		{"bytes above ASCII in quotes", "switch \"\xc3\xa9\" { interface bridge0 }", ""},
		{"NUL", "switch s\x00 { interface bridge0 }", "t:1: byte 0x00 is not allowed"},
		{"marker byte 1", "\n# \x01\n", "t:2: byte 0x01 is not allowed"},
		{"marker byte 2", "\x02", "t:1: byte 0x02 is not allowed"},
		{"longest token", "a=" + strings.Repeat("x", maxToken) + "\nagentx context $a", "agentx context"},
		{"word too long", "a=" + strings.Repeat("x", maxToken+1), "word or string is longer than 8095 bytes"},
		{"string too long", `a="` + strings.Repeat("x", maxToken+1) + `"`, "word or string is longer than 8095 bytes"},
		{"number too long", "local prefix " + strings.Repeat("1", maxToken+1), "word or string is longer than 8095 bytes"},
		{"strings too long together", `a="` + strings.Repeat("x", 5000) + "\"\nswitch $a $a { interface br0 }", "longer than 8095 bytes"},
		{"empty file", "", ""},
		{"only blanks", " \t\n\n # x\n", ""},
		{"case matters", `Switch s { interface bridge0 }`, `"Switch" is not a statement`},

		// Macros.
		{"undefined macro", "switch $s { interface bridge0 }", `macro "s" is not defined`},
		{"undefined empty macro", "switch $ { interface bridge0 }", `macro "" is not defined`},
		{"macro is a keyword", "k=\"switch\"\n$k s { interface bridge0 }", ""},
		{"macro is several tokens", "k=\"s { interface bridge0\"\nswitch $k }", ""},
		{"macro is a quoted string", "k='\"s t\"'\nswitch $k { interface bridge0 }", ""},
		{"macro is empty", "k=\"\"\nswitch s $k { interface bridge0 }", ""},
		{"macro hides the rest of the line", "k=\"# no\"\nswitch s { interface bridge0 $k }\n}", ""},
		{"macro in quotes is not expanded", "k=x\nswitch \"$k\" { interface bridge0 }\nvm a { disk \"/d\"\n interface { switch \"$k\" }\n}", ""},
		{"macro inside a word is not expanded", "k=x\nswitch a$k { interface bridge0 }\nvm a { disk \"/d\"\n interface { switch \"a$k\" }\n}", ""},
		{"macro in a macro, first", "a=x\nb=\"$a\"\nswitch $b { interface bridge0 }", `found "$"`},
		{"macro in a macro, inside", "b='x$a'\nswitch $b { interface bridge0 }\nvm a { disk \"/d\"\n interface { switch 'x$a' }\n}", ""},
		{"macro redefined", "a=x\na=y\nswitch $a { interface bridge0 }\nvm a { disk \"/d\"\n interface { switch y }\n}", ""},
		{"macro name with white space", `"a b" = c`, "white space"},
		{"macro value missing", "a=\n", "expected the value of a macro, a string, found the end of the line"},
		{"macro values do not join", `a="x" "y"`, "expected the end of the line"},
		{"macro name is reserved", "memory = x", `expected a statement, found "memory"`},
		{"macro named as an extension", "cpus=\"2\"\nlimit=x\n" + vm + "cpus $cpus\n}", ""},

		// Extensions are words everywhere else.
		{"names that are extensions", "switch limit { interface br-ext }\nvm cpus { disk \"/d\"\n interface switch limit\n}\nvm restart { disk \"/a\" }\nvm cpus instance uuid { disk \"/b\" }", ""},
		{"extension word joins a path", `vm a { cdrom /iso initrd }`, ""},
		{"quoted extension is no option", vm + "\"cpus\" 2\n}", `expected an option of a vm, found string "cpus"`},

		// Recovery: nothing after the error counts twice.
		{"error in a block", "vm a {\n memory 1\n disk /d\n interface { switch x }\n}\nswitch s { interface bridge0 }", "memory"},
		{"unclosed block", "vm a {\n disk \"/d\"\nvm b { disk \"/a\" }\nvm c { disk \"/b\" }", `t:3: syntax error: the block that begins on line 1 has no "}"`},
		{"unclosed block at the end", "vm a {\n disk \"/d\"\n", "t:4: syntax error: the block that begins on line 1 has no \"}\""},
		{"stray brace", "}\nvm b { disk \"/a\" }", `expected a statement, found "}"`},
		{"text after a block", "vm b { disk \"/a\" } x", "expected the end of the line"},
		{"instances of a bad vm", "vm a { memory 1 }\nvm a instance b { disk \"/b\" }\nvm b instance c { disk \"/c\" }", "memory"},
		{"nic on a bad switch", "switch s { interface a/b }\nvm a { disk \"/d\"\n interface { switch s }\n}", "switch interface"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(tt.in, options())
			if tt.want == "" {
				if err != nil {
					t.Errorf("%s\nrefused: %v", tt.in, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("%s\naccepted, want error with %q", tt.in, tt.want)
			}
			lines := strings.Split(err.Error(), "\n")
			if !strings.Contains(lines[0], tt.want) {
				t.Errorf("%s\ngot  %s\nwant %s", tt.in, lines[0], tt.want)
			}
			if len(lines) > 2 {
				t.Errorf("%s\nmore than one error follows the first:\n%v", tt.in, err)
			}
		})
	}
}

// TestLexer checks values that the grammar alone does not show.
func TestLexer(t *testing.T) {
	tests := []struct{ in, want string }{
		{`"a\"b"`, `a"b`},
		{`'a\'b'`, `a'b`},
		{`"a\'b"`, `a\'b`},
		{`'a\"b'`, `a\"b`},
		{`"a\ b"`, `a b`},
		{"\"a\\\tb\"", "a\tb"},
		{`"a\nb"`, `a\nb`},
		{`"a\\b"`, `a\\b`},
		{"\"a\\\nb\"", "ab"},
		{"\"a\nb\"", "ab"},
		{`a\b`, `ab`},
		{`a\\b`, `a\b`},
		{`a"b'c$d@e*f;g`, `a"b'c$d@e*f;g`},
		{`:a`, `:a`},
		{`_a`, `_a`},
		{`/a`, `/a`},
		{`512M`, `512M`},
		{`00:11:22:33:44:55`, `00:11:22:33:44:55`},
		{`1.5G`, `1.5G`},
		{`50%`, `50%`},
		{`12\
3x`, `123x`},
		{`""`, ``},
	}
	for _, tt := range tests {
		l := newLexer(newParser(options()), "t", []byte(tt.in))
		if got := l.next(); !got.isString() || got.text != tt.want {
			t.Errorf("%s: token %d %q, want string %q", tt.in, got.kind, got.text, tt.want)
		}
		if got := l.next().kind; got != tokNewline {
			t.Errorf("%s: token %d follows, want the supplied newline", tt.in, got)
		}
		if got := l.next().kind; got != tokEOF {
			t.Errorf("%s: token %d follows, want the end", tt.in, got)
		}
	}
}

// TestReserved holds the list to vmd(8)'s 39 words.
func TestReserved(t *testing.T) {
	if len(reserved) != 39 {
		t.Errorf("%d reserved words, want 39", len(reserved))
	}
}

// TestErrorLine checks that a message names the line of what it is about.
func TestErrorLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"\n\nlocal prefix 1.2.3.4/8\n", "t:3: "},
		{"vm a {\n disk \"/d\"\n memory 1 \\\n\n}", "t:3: "},
		{"# x \\\n y\nfoo\n", "t:3: "},
		{"a=\"x\ny\"\nfoo\n", "t:3: "},
		{"vm a {\n memory 1G\n}", "t:1: vm \"a\": there is no boot image, disk or cdrom"},
		{"vm a {\n\n disk \"/d\" }\n\nvm a { disk \"/a\" }", "t:5: vm \"a\" is already defined at t:1"},
	}
	for _, tt := range tests {
		if _, err := load(tt.in, options()); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.in, err, tt.want)
		}
	}
}

// TestEveryExtensionEndsAString: a word that means an option of a VM is either
// reserved or told from a piece of a string by its argument.
func TestEveryExtensionEndsAString(t *testing.T) {
	for word := range vmOptions {
		if reserved[word] == (extensions[word] != nil) {
			t.Errorf("%s: reserved %v, an extension %v", word, reserved[word], extensions[word] != nil)
		}
	}
}
