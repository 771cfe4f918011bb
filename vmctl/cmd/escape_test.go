package cmd

import "testing"

func TestEscapes(t *testing.T) {
	for _, tt := range []struct {
		name, in, out string
		acts          []action
	}{
		{"plain", "ls ~/x\r", "ls ~/x\r", nil},
		{"disconnect at the start", "~.", "", []action{actDisconnect}},
		{"disconnect after return", "ls\r~.", "ls\r", []action{actDisconnect}},
		{"disconnect after newline", "ls\n~\x04", "ls\n", []action{actDisconnect}},
		{"not in a line", "a~.", "a~.", nil},
		{"one tilde", "~~", "~", nil},
		{"a tilde and a dot", "~~.", "~.", nil},
		{"break, then in a new line still", "~#~.", "", []action{actBreak, actDisconnect}},
		{"help", "~?", "", []action{actHelp}},
		{"suspend", "x\r~\x1a", "x\r", []action{actSuspend}},
		{"a directory", "~/bin\r", "~/bin\r", nil},
		{"tilde and return", "~\r~.", "~\r", []action{actDisconnect}},
		{"file transfer is disabled", "~>", "~>", nil},
		{"tilde held back", "~", "", nil},
	} {
		var e escapes
		var out []byte
		var acts []action
		for i := range len(tt.in) {
			var act action
			if out, act = e.next(out, tt.in[i]); act != actNone {
				acts = append(acts, act)
			}
		}
		if string(out) != tt.out || len(acts) != len(tt.acts) {
			t.Errorf("%s: %q gave %q, %v; want %q, %v", tt.name, tt.in, out, acts, tt.out, tt.acts)
			continue
		}
		for i := range acts {
			if acts[i] != tt.acts[i] {
				t.Errorf("%s: %q asked for %v, want %v", tt.name, tt.in, acts, tt.acts)
			}
		}
	}
}
