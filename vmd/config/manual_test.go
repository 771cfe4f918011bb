package config

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"vmd/internal/testenv"
)

func manual(t *testing.T) string {
	data, err := os.ReadFile("../vm.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestManualsAreClean has mandoc look for mistakes in the manuals of vmd.
func TestManualsAreClean(t *testing.T) {
	mandoc := testenv.Tool(t, "mandoc")
	for _, name := range []string{"../vm.conf.5", "../vmd.8"} {
		out, err := exec.Command(mandoc, "-T", "lint", name).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			switch {
			case strings.Contains(line, "referenced manual not found"), strings.Contains(line, "mandoc.db"):
				// Whether other manuals are installed is no matter of this one.
			case strings.Contains(line, "possible typo in section name: Sh SNMP instead of NAME"):
			default:
				t.Errorf("%s", line)
			}
		}
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
}

// TestManualExamples loads every example of vm.conf(5).
func TestManualExamples(t *testing.T) {
	parts := strings.Split(manual(t), ".Bd -literal -offset indent\n")
	if len(parts) < 4 {
		t.Fatalf("%d examples in the manual, want several", len(parts)-1)
	}
	path := regexp.MustCompile(`"(/[^"]*[^/"])"`)
	for _, part := range parts[1:] {
		text, _, _ := strings.Cut(part, ".Ed\n")
		f := *files
		f.text = map[string]string{"t": text}
		f.modes = map[string]fs.FileMode{"/var/lib/vmd/images/www.qcow2": 0}
		for _, m := range path.FindAllStringSubmatch(text, -1) {
			f.modes[m[1]] = 0
		}
		opt := options()
		opt.FS = &f
		if cfg, err := Load("t", opt); err != nil || len(cfg.Warnings) > 0 {
			t.Errorf("%s\n%v", text, dump(cfg, err))
		}
	}
}

// TestManualWords checks that vm.conf(5) has every word of the language.
func TestManualWords(t *testing.T) {
	text := manual(t)
	for w := range languageWords() {
		macro := regexp.MustCompile(`(?m)\b(Ic|Cm)\b.*[ ,]?\b` + regexp.QuoteMeta(w) + `\b`)
		if !macro.MatchString(text) && !strings.Contains(text, "Ic "+w) {
			t.Errorf("%q is not in the manual", w)
		}
	}
}

// languageWords are all words that mean something somewhere.
func languageWords() map[string]bool {
	words := map[string]bool{"cpu": true, "memory-high": true, "io-read": true, "io-write": true,
		"on-failure": true, "never": true, "max": true, "in": true, "modern": true, "transitional": true}
	for w := range reserved {
		words[w] = true
	}
	for w := range agentxOptions {
		words[w] = true
	}
	for w := range notifications {
		words[w] = true
	}
	for w := range vmOptions {
		words[w] = true
	}
	for w := range allowOptions {
		words[w] = true
	}
	// Reserved by vmd(8), but no rule has them.
	for _, w := range []string{"add", "id", "size"} {
		delete(words, w)
	}
	return words
}
