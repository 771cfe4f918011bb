package disk

import (
	"bytes"
	"errors"
	"math/rand"
	"sync"
	"testing"
)

// ram is a disk in memory.
type ram struct {
	mu   sync.Mutex
	data []byte
	fail error // of changes
}

func (r *ram) Size() int64 { return int64(len(r.data)) }

func (r *ram) ReadAtV(bufs [][]byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := CheckRange(r.Size(), off, Len(bufs)); err != nil {
		return err
	}
	for _, b := range bufs {
		off += int64(copy(b, r.data[off:]))
	}
	return nil
}

func (r *ram) WriteAtV(bufs [][]byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := CheckRange(r.Size(), off, Len(bufs)); err != nil {
		return err
	}
	for _, b := range bufs {
		off += int64(copy(r.data[off:], b))
	}
	return r.fail
}

func (r *ram) WriteZeroes(off, n int64, _ bool) error {
	return r.WriteAtV([][]byte{make([]byte, n)}, off)
}
func (r *ram) Discard(off, n int64) error { return r.WriteZeroes(off, n, true) }
func (r *ram) Flush() error               { return nil }
func (r *ram) Close() error               { return nil }

func take(t *Tracked) (blocks []int64) {
	for off := int64(0); ; {
		start, n, ok := t.Next(off)
		if !ok {
			return blocks
		}
		blocks = append(blocks, start/TrackedBlock)
		off = start + n
	}
}

func TestTracked(t *testing.T) {
	t.Parallel()
	img := Track(&ram{data: make([]byte, 70*TrackedBlock+512)})
	write := func(off, n int64) { img.WriteAtV([][]byte{make([]byte, n)}, off) }
	write(0, 512)
	if got := take(img); got != nil {
		t.Fatalf("nobody watches, and %v changed", got)
	}
	img.Watch(true)
	for _, c := range []struct {
		do   func()
		want []int64
	}{
		{func() {}, nil},
		{func() { write(0, 1) }, []int64{0}},
		{func() { write(TrackedBlock-1, 2) }, []int64{0, 1}},
		{func() { write(63*TrackedBlock, TrackedBlock+1) }, []int64{63, 64}},
		{func() { write(70*TrackedBlock, 512) }, []int64{70}},
		{func() { write(5, 0) }, nil},
		{func() { write(70*TrackedBlock, 513) }, nil}, // refused
		{func() { img.Discard(3*TrackedBlock, TrackedBlock) }, []int64{3}},
		{func() { img.WriteZeroes(4*TrackedBlock, 1, true) }, []int64{4}},
	} {
		c.do()
		if got := img.Changed(); got != int64(len(c.want))*TrackedBlock {
			t.Errorf("%d bytes changed, want %d blocks", got, len(c.want))
		}
		got := take(img)
		if len(got) != len(c.want) {
			t.Fatalf("%v changed, want %v", got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Fatalf("%v changed, want %v", got, c.want)
			}
		}
	}
	img.Watch(false)
	write(0, 1)
	if got := take(img); got != nil || img.Changed() != 0 {
		t.Errorf("%v changed after the end", got)
	}
}

// What failed may have happened in part.
func TestTrackedFailure(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad disk")
	img := Track(&ram{data: make([]byte, TrackedBlock), fail: bad})
	img.Watch(true)
	if err := img.WriteAtV([][]byte{{1}}, 0); !errors.Is(err, bad) {
		t.Error(err)
	}
	if got := take(img); len(got) != 1 {
		t.Errorf("%v changed", got)
	}
}

// Whoever copies while others write has it all when they stop and he has taken
// what is left.
func TestTrackedCopy(t *testing.T) {
	t.Parallel()
	src := &ram{data: make([]byte, 200*TrackedBlock)}
	img, dst := Track(src), make([]byte, len(src.data))
	img.Watch(true)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for seed := range 4 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			rnd := rand.New(rand.NewSource(int64(seed)))
			b := make([]byte, 3000)
			for {
				select {
				case <-stop:
					return
				default:
					rnd.Read(b)
					img.WriteAtV([][]byte{b}, rnd.Int63n(img.Size()-int64(len(b))))
				}
			}
		}()
	}
	copyBlock := func(start, n int64) {
		if err := img.ReadAtV([][]byte{dst[start : start+n]}, start); err != nil {
			t.Error(err)
		}
	}
	for off := int64(0); off < img.Size(); off += TrackedBlock {
		copyBlock(off, TrackedBlock)
	}
	rest := func() {
		for off := int64(0); ; {
			start, n, ok := img.Next(off)
			if !ok {
				return
			}
			copyBlock(start, n)
			off = start + n
		}
	}
	rest()
	close(stop)
	writers.Wait()
	rest()
	if !bytes.Equal(dst, src.data) {
		t.Error("the copy differs")
	}
}

func TestTrackedDoesNotAllocate(t *testing.T) {
	img := Track(&ram{data: make([]byte, TrackedBlock)})
	bufs := [][]byte{make([]byte, 512)}
	for _, on := range []bool{false, true} {
		img.Watch(on)
		if n := testing.AllocsPerRun(100, func() { img.WriteAtV(bufs, 0) }); n != 0 {
			t.Errorf("watched %v: %v allocations per write", on, n)
		}
	}
}
