package parent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

func TestQueues(t *testing.T) {
	for _, tt := range []struct{ cpus, nics, want int }{
		{1, 1, 1}, {2, 1, 2}, {4, 2, 4}, {8, 1, 8}, {64, 1, 8}, {64, 2, 4}, {64, 4, 2}, {64, 9, 1}, {2, 0, 2},
	} {
		d := config.VM{CPUs: tt.cpus, NICs: make([]config.NIC, tt.nics)}
		if got := queues(&d); got != tt.want {
			t.Errorf("%d CPUs, %d interfaces: %d queues, want %d", tt.cpus, tt.nics, got, tt.want)
		}
	}
}

func TestNamesOfQueues(t *testing.T) {
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	n := nic{taps: []*os.File{open("a"), open("b")}, vhost: []*os.File{open("c"), open("d")}}
	var names []string
	files := n.files(3)
	for _, f := range files {
		names = append(names, f.name)
	}
	if want := []string{"tap3", "tap3.1", "vhost3", "vhost3.1"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	n.close() // nothing that was handed over
	for _, f := range files {
		if err := f.file.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Whatever looks at frames keeps the kernel from moving them.
func TestWhoGetsNoVhost(t *testing.T) {
	for _, n := range []nic{
		{arg: vmop.NICArg{Locked: true}}, {arg: vmop.NICArg{Local: &vmop.Local{}}},
	} {
		n.taps = []*os.File{nil}
		if n.openVhost(); len(n.vhost) != 0 {
			t.Errorf("%+v: %d descriptors", n.arg, len(n.vhost))
		}
	}
}
