package counters

import (
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

func TestWriterAndReaderShareThePage(t *testing.T) {
	f, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := Map(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := SealWrites(f); err != nil {
		t.Fatal(err)
	}
	r, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	atomic.StoreUint64(&w.Disk[MaxDisks-1].ReadBytes, 4096)
	atomic.StoreUint64(&w.VCPU[1], 7)
	if got := r.Disk(MaxDisks - 1).ReadBytes; got != 4096 {
		t.Errorf("read bytes: got %d, want 4096", got)
	}
	if got := r.VCPU(1); got != 7 {
		t.Errorf("vcpu 1: got %d, want 7", got)
	}
	atomic.StoreUint64(&w.Guest.Reported, 9)
	if got := r.Guest(); got != (Guest{Reported: 9}) {
		t.Errorf("guest's memory: got %+v", got)
	}
	if !r.Valid() {
		t.Error("page not valid")
	}
	if got := r.Disk(MaxDisks); got != (Disk{}) {
		t.Errorf("disk out of range: got %+v", got)
	}
	if _, err := Map(f); err == nil {
		t.Error("mapped for writing after SealWrites")
	}
}

func TestOpenRefusesWhatIsNoPage(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Truncate(int64(Size))
	if _, err := Open(f); err == nil {
		t.Error("opened a file that can shrink under its mapping")
	}
}

func TestProcessCPUOfAnotherProcess(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	deadline := time.Now().Add(20 * time.Second)
	for {
		d, err := ProcessCPU(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if d > 5*time.Millisecond {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("CPU clock stands at %v", d)
		}
		time.Sleep(time.Millisecond)
	}
}
