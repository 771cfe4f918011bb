package cmd

import (
	"io"
	"strings"
	"testing"

	"vmd/internal/vmop"
)

func TestComplete(t *testing.T) {
	k := completer{
		root: (&tool{out: io.Discard, err: io.Discard}).root(),
		list: func() []vmop.VM {
			return []vmop.VM{
				{Name: "web", PID: 1, State: vmop.Running}, {Name: "wiki"}, {Name: "held", PID: 2, State: vmop.Paused},
			}
		},
	}
	for _, tt := range []struct{ words, want string }{
		{"co", "completion console"},
		{"-v st", "start stats status stop"},
		{"-H a,b st", "start stats status stop"},
		{"-vH a --snmp-config x --json st", "start stats status stop"},
		{"-H st", ""},
		{"-H", ""},
		{"--snmp-config ", ":files"},
		{"help re", "receive reload reset restart"},
		{"help stop ", ""},
		{"h", "help"},
		{"", "help completion console create load log pause receive reload reset restart send show start stats status stop unpause wait"},
		{"nosuch ", ""},
		{"re x", ""}, // ambiguous
		{"stop w", "web"},
		{"sto -fw w", "web"}, // a short form
		{"stop -f -- w", "web"},
		{"stop web ", ""},
		{"stop -", "-f --force -w --wait -a --all --timeout"},
		{"stop --timeout ", ""},
		{"stop --timeout 3 w", "web"},
		{"stop --timeout=3 w", "web"},
		{"start w", "wiki"},
		{"start -d ", ":files"},
		{"start -cd ", ":files"},
		{"start -dx w", "wiki"},
		{"start -t w", "web wiki"},
		{"start -B c", "cdrom"},
		{"start --boot-device=", "--boot-device=disk --boot-device=cdrom --boot-device=net"},
		{"unpause ", "held"},
		{"wait --for r", "running"},
		{"wait --for running w", "web wiki"},
		{"status ", "web wiki held"},
		{"log v", "verbose"},
		{"log -", ""},
		{"reset ", "all switches vms"},
		{"load /e", ":files"},
		{"create -i ", ":files"},
		{"create -s ", ""},
		{"completion z", "zsh"},
	} {
		var got []string
		for _, c := range k.complete(strings.Split(tt.words, " ")) {
			got = append(got, c.word)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q: %q, want %q", tt.words, s, tt.want)
		}
	}
}
