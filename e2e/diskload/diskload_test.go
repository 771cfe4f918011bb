package diskload

import (
	"bytes"
	"strings"
	"testing"
)

// write puts record n on a disk.
func write(disk []byte, n uint32) { Put(disk[Place(n)*Block:][:Block], n, 0) }

// after is a disk after the records up to last, over base.
func after(base []byte, last uint32) []byte {
	disk := bytes.Clone(base)
	for n := uint32(Batch); n <= last; n++ {
		write(disk, n)
	}
	return disk
}

func TestHistory(t *testing.T) {
	base := bytes.Repeat([]byte{7}, Size)
	const synced = 40*Batch - 1
	var h History
	h.Add(Batch, synced, synced+Batch)
	at := Place(20*Batch) * Block
	for _, c := range []struct {
		name   string
		change func(disk []byte)
		want   string
	}{
		{"as synced", func([]byte) {}, ""},
		{"some of the next batch", func(d []byte) { write(d, synced+3) }, ""},
		{"a torn record", func(d []byte) { d[at+700]++ }, "no record"},
		{"the base again", func(d []byte) { copy(d[at:], base[:sector]) }, "no record"},
		{"a record from later than there are", func(d []byte) { write(d, synced+Batch+1) }, "want 0 to"},
		{"a record in another's place", func(d []byte) { Put(d[at:at+Block], 20*Batch+1, 0) }, "want 160 to"},
	} {
		disk := after(base, synced)
		c.change(disk)
		err := h.Check(bytes.NewReader(disk), bytes.NewReader(base))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// An older record does where its batch was not synced when a newer one came.
func TestHistoryKeepsTheSyncedOne(t *testing.T) {
	base := make([]byte, Size)
	var old, again uint32
	seen := make(map[int64]uint32)
	for n := uint32(Batch); again == 0; n++ {
		if m, ok := seen[Place(n)]; ok && m/Batch != n/Batch {
			old, again = m, n
		}
		seen[Place(n)] = n
	}
	synced := again/Batch*Batch + Batch - 1
	disk := after(base, synced)
	write(disk, old)
	var h History
	h.Add(Batch, synced, synced)
	if err := h.Check(bytes.NewReader(disk), bytes.NewReader(base)); err == nil {
		t.Errorf("record %d in place of %d, which was synced, is taken as right", old, again)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"time"}, {"fill", "/dev/null", "1"}, {"verify", "/dev/null", "x", "1"}, {"what", "/dev/null"}} {
		if run(args, nil) == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
