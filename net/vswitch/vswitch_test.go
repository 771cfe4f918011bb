package vswitch

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRepeatWhatWasInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name        string
		interrupted int // times
		end         error
		want        error
	}{
		{"whole at once", 0, nil, nil},
		{"whole in the end", dumpTries - 1, nil, nil},
		{"another error", 3, fs.ErrPermission, fs.ErrPermission},
		{"never whole", dumpTries, nil, netlink.ErrDumpInterrupted},
	} {
		n := 0
		err := repeat(func() error {
			if n++; n <= tt.interrupted {
				return netlink.ErrDumpInterrupted
			}
			return tt.end
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v after %d, want %v", tt.name, err, n, tt.want)
		}
	}
}

func TestHostMAC(t *testing.T) {
	for _, tt := range []struct{ guest, want [6]byte }{
		{[6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0x12, 0x34}, [6]byte{0xfe, 0xe1, 0xba, 0xd1, 0x12, 0x34}},
		{[6]byte{0x52, 0x54, 0x00, 0xff, 0xff, 0xff}, [6]byte{0xfe, 0x54, 0x01, 0xff, 0xff, 0xff}},
		{[6]byte{0, 0, 0, 0, 0, 1}, [6]byte{0xfe, 0, 1, 0, 0, 1}},
	} {
		if got := HostMAC(tt.guest); got != tt.want {
			t.Errorf("%x: got %x, want %x", tt.guest, got, tt.want)
		}
	}
}

func TestGroupNumbers(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/group", "0\tdefault\n7 tap\n")
	write("etc/group", "# device group names\n0 default\n 0x10\tguests # of ours\n9 tap\n5\n6 a b\n-1 x\n"+
		"4294967296 y\nz 3\n2147483647 last\n2147483648 over\n")
	write("etc/group.d/more.conf", "11 dmz\n")
	write("etc/group.d/other.txt", "12 other\n")
	got, err := readGroups([]string{filepath.Join(dir, "usr"), filepath.Join(dir, "etc"), filepath.Join(dir, "none")})
	want := map[string]uint32{"default": 0, "guests": 16, "tap": 9, "dmz": 11, "last": 1<<31 - 1}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestGroupFileOfOneEndlessLine(t *testing.T) {
	if err := parseGroups(strings.NewReader(strings.Repeat("x", maxGroupFile)), map[string]uint32{}); err == nil {
		t.Error("no error")
	}
}
