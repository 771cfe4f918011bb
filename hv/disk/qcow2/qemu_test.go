package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmd/internal/testenv"
)

// referee is qemu-img and qemu-io.
type referee struct {
	t       testing.TB
	img, io string
	dir     string
}

func newReferee(t testing.TB) *referee {
	t.Helper()
	return &referee{t, testenv.Tool(t, "qemu-img"), testenv.Tool(t, "qemu-io"), t.TempDir()}
}

func (q *referee) path(name string) string { return filepath.Join(q.dir, name) }

func (q *referee) run(prog string, args ...string) {
	q.t.Helper()
	cmd := exec.Command(prog, args...)
	cmd.Dir = q.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		q.t.Fatalf("%s %s: %v\n%s", filepath.Base(prog), strings.Join(args, " "), err, out)
	}
}

// check wants no leak and no error: qemu-img's exit code is 0 then.
func (q *referee) check(name string) {
	q.t.Helper()
	q.run(q.img, "check", "-q", "-f", "qcow2", name)
}

func (q *referee) file(name string, write bool) *os.File {
	q.t.Helper()
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	f, err := os.OpenFile(q.path(name), mode, 0)
	if err != nil {
		q.t.Fatal(err)
	}
	return f
}

func (q *referee) write(name string, data []byte) {
	q.t.Helper()
	if err := os.WriteFile(q.path(name), data, 0o600); err != nil {
		q.t.Fatal(err)
	}
}

// patchy is data with holes, as disks are.
func patchy(seed uint64, n int64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for k := 0; k < 20; k++ {
		off := r.Int64N(n/sectorSize) * sectorSize
		copy(b[off:], random(r, min(n-off, 1+r.Int64N(n/16))))
	}
	// Something that compresses.
	copy(b[n/3:], bytes.Repeat([]byte("a storage engineer's disk "), int(n/100)))
	return b
}

// What QEMU writes, we read.
func TestReadsQEMU(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{
		"compat=0.10", "compat=1.1",
		"cluster_size=512", "cluster_size=4096", "cluster_size=2M", "compat=0.10,cluster_size=512",
		"refcount_bits=1", "refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "refcount_bits=32", "refcount_bits=64",
		"lazy_refcounts=on", "preallocation=metadata", "preallocation=full",
		"-c", "-c compression_type=zlib,cluster_size=512", "-c compression_type=zlib,cluster_size=2M",
		"-c compression_type=zstd", "-c compression_type=zstd,cluster_size=4096", "-c compression_type=zstd,cluster_size=2M",
		"-c compat=0.10",
	} {
		t.Run(opts, func(t *testing.T) {
			t.Parallel()
			q := newReferee(t)
			data := patchy(3, 6<<20+5*sectorSize)
			q.write("raw", data)
			args := []string{"convert", "-f", "raw", "-O", "qcow2", "raw", "img"}
			if o, compressed := strings.CutPrefix(opts, "-c"); compressed {
				args = append(args, "-c")
				opts = strings.TrimSpace(o)
			}
			if opts != "" {
				args = append(args, "-o", opts)
			}
			q.run(q.img, args...)
			img, err := Open(q.file("img", false), nil, true)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(readAll(t, img), data) {
				t.Error("disk differs")
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			q.changeAndCompare("img", data)
		})
	}
}

// changeAndCompare writes to an image and has QEMU look at it.
func (q *referee) changeAndCompare(name string, data []byte) {
	q.t.Helper()
	img, err := Open(q.file(name, true), nil, false)
	if err != nil {
		q.t.Fatal(err)
	}
	m := &model{q.t, rand.New(rand.NewPCG(9, 9)), img, data}
	steps := 150
	if img.clusterBits == maxClusterBits {
		steps = 20 // of megabytes
	}
	for range steps {
		m.step()
	}
	m.compare(0, img.Size())
	if err := img.Close(); err != nil {
		q.t.Fatal(err)
	}
	q.check(name)
	q.write("want", m.want)
	q.run(q.img, "compare", "-q", "-f", "qcow2", "-F", "raw", name, "want")
	f := q.file(name, false)
	defer f.Close()
	if r, err := Check(f); err != nil || r.Leaks+r.Corruptions > 0 {
		q.t.Errorf("our own check: %+v, %v", r, err)
	}
}

// What we make, QEMU accepts and writes to.
func TestQEMUReadsOurs(t *testing.T) {
	t.Parallel()
	for _, bits := range []uint{9, 10, 12, 16, 21} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			t.Parallel()
			q := newReferee(t)
			data := patchy(5, 5<<20+3*sectorSize)
			q.create("img", Options{Size: int64(len(data)), ClusterBits: bits})
			q.check("img")
			img, err := Open(q.file("img", true), nil, false)
			if err != nil {
				t.Fatal(err)
			}
			const piece = 64 << 10
			for off := 0; off < len(data); off += piece {
				b := data[off:min(off+piece, len(data))]
				if bytes.Count(b, []byte{0}) == len(b) {
					continue // not written, so that the image has holes
				}
				if err := img.WriteAtV([][]byte{b}, int64(off)); err != nil {
					t.Fatal(err)
				}
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			q.run(q.io, "-f", "qcow2", "-c", "write -P 0x5a 1M 1M", "-c", "discard 3M 1M", "-c", "write -z 100k 300k", "img")
			for k := range 1 << 20 {
				data[1<<20+k] = 0x5a
			}
			clear(data[3<<20 : 4<<20])
			clear(data[100<<10 : 400<<10])
			q.changeAndCompare("img", data)
		})
	}
}

func (q *referee) create(name string, o Options) {
	q.t.Helper()
	f, err := os.Create(q.path(name))
	if err != nil {
		q.t.Fatal(err)
	}
	defer f.Close()
	if err := Create(f, o); err != nil {
		q.t.Fatal(err)
	}
}

// QEMU's idea of an image that we made, as text.
func TestInfoOfQEMU(t *testing.T) {
	t.Parallel()
	q := newReferee(t)
	q.write("base", make([]byte, 1<<20))
	q.create("img", Options{Size: 3 << 30, BackingName: "base", BackingFormat: "raw"})
	cmd := exec.Command(q.img, "info", "-f", "qcow2", q.path("img"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"virtual size: 3 GiB", "cluster_size: 65536", "backing file: base", "backing file format: raw", "compat: 1.1", "refcount bits: 16", "corrupt: false"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	q.check("img")
}

func TestEmptyAndHugeDisks(t *testing.T) {
	t.Parallel()
	q := newReferee(t)
	for name, o := range map[string]Options{
		"empty":                                {},
		"sector":                               {Size: sectorSize},
		"huge":                                 {Size: 1 << 50},
		"small clusters, many refcount blocks": {Size: 100 << 30, ClusterBits: 9},
		"large clusters":                       {Size: 1 << 55, ClusterBits: 21},
	} {
		q.create(name, o)
		q.check(name)
		img, err := Open(q.file(name, true), nil, false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if img.Size() != o.Size {
			t.Errorf("%s: size %d, want %d", name, img.Size(), o.Size)
		}
		if o.Size > 0 {
			if err := img.WriteAtV([][]byte{make([]byte, sectorSize)}, o.Size-sectorSize); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := img.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		q.check(name)
	}
}

// Chains of two and three, over raw and over qcow2, from both.
func TestBackingChains(t *testing.T) {
	t.Parallel()
	q := newReferee(t)
	data := patchy(11, 3<<20+sectorSize)
	q.write("raw", data)
	q.run(q.img, "create", "-q", "-f", "qcow2", "-b", "raw", "-F", "raw", "-o", "cluster_size=4096", "mid")
	q.run(q.io, "-f", "qcow2", "-c", "write -P 7 1M 123k", "mid")
	for k := range 123 << 10 {
		data[1<<20+k] = 7
	}
	q.create("top", Options{Size: 4 << 20, BackingName: "mid", BackingFormat: "qcow2"})
	want := make(plain, 4<<20)
	copy(want, data)
	before, err := os.ReadFile(q.path("mid"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := OpenChain([]*os.File{q.file("top", true), q.file("mid", false), q.file("raw", false)}, false)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{t, rand.New(rand.NewPCG(1, 1)), img.(*Image), want}
	for range 200 {
		m.step()
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	q.write("want", want)
	q.check("top")
	q.run(q.img, "compare", "-q", "-f", "qcow2", "-F", "raw", "top", "want")
	if after, err := os.ReadFile(q.path("mid")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("base was changed: %v", err)
	}
}

// A chain is opened with the files it needs, no more and no less.
func TestChainsOfWrongLength(t *testing.T) {
	t.Parallel()
	q := newReferee(t)
	q.write("raw", make([]byte, 1<<20))
	q.create("top", Options{Size: 1 << 20, BackingName: "raw", BackingFormat: "raw"})
	q.create("odd", Options{Size: 1 << 20, BackingName: "x", BackingFormat: "vmdk"})
	q.create("guess", Options{Size: 1 << 20, BackingName: "raw"})
	q.create("alone", Options{Size: 1 << 20})
	for _, tt := range []struct{ files, want string }{
		{"top", "is missing"},
		{"top raw raw", "needs 2 files, but was given 3"},
		{"alone raw", "needs 1 files, but was given 2"},
		{"odd raw", `format "vmdk"`},
		{"guess raw", "not a qcow2 image"}, // and not taken for raw
		{"", "want 1 to 4"},
		{"top top top top top", "want 1 to 4"},
	} {
		var files []*os.File
		for _, name := range strings.Fields(tt.files) {
			files = append(files, q.file(name, true))
		}
		_, err := OpenChain(files, false)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.files, err, tt.want)
		}
		for _, f := range files {
			if f.Close() == nil {
				t.Errorf("%q: %s was left open", tt.files, filepath.Base(f.Name()))
			}
		}
	}
}

// Internal snapshots stay as they are while the disk changes.
func TestSnapshotsSurvive(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{"cluster_size=64k", "cluster_size=512", "cluster_size=4k,refcount_bits=2"} {
		q := newReferee(t)
		data := patchy(21, 2<<20)
		q.write("raw", data)
		q.run(q.img, "convert", "-f", "raw", "-O", "qcow2", "-o", opts, "raw", "img")
		q.run(q.img, "snapshot", "-c", "first", "img")
		q.changeAndCompare("img", bytes.Clone(data))
		q.run(q.img, "snapshot", "-c", "second", "img")
		second, err := os.ReadFile(q.path("want"))
		if err != nil {
			t.Fatal(err)
		}
		q.changeAndCompare("img", bytes.Clone(second))
		for name, want := range map[string][]byte{"first": data, "second": second} {
			q.write("want", want)
			q.run(q.img, "convert", "-f", "qcow2", "-O", "raw", "-l", "snapshot.name="+name, "img", "got")
			q.run(q.img, "compare", "-q", "-f", "raw", "-F", "raw", "got", "want")
		}
		q.run(q.img, "snapshot", "-d", "first", "img")
		q.run(q.img, "snapshot", "-a", "second", "img")
		q.check("img")
		q.changeAndCompare("img", bytes.Clone(second))
	}
}

// A QEMU that was killed with lazy refcounts leaves a dirty image.
func TestRebuildsDirtyImages(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{"cluster_size=64k", "cluster_size=512", "cluster_size=512,refcount_bits=64"} {
		q := newReferee(t)
		q.run(q.img, "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on,"+opts, "img", "8M")
		cmd := exec.Command(q.io, "-f", "qcow2", "-c", "write -P 3 0 2M", "-c", "write -P 4 5M 1M", "-c", "flush", "-c", "abort", q.path("img"))
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("abort: %s", out)
		}
		f := q.file("img", false)
		h, err := infoOf(f)
		if err != nil || !h.Dirty {
			t.Fatalf("%s: not dirty: %+v, %v", opts, h, err)
		}
		f.Close()
		data := make([]byte, 8<<20)
		copy(data, bytes.Repeat([]byte{3}, 2<<20))
		copy(data[5<<20:], bytes.Repeat([]byte{4}, 1<<20))
		img, err := Open(q.file("img", true), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if img.Header().Dirty {
			t.Error("still dirty")
		}
		if !bytes.Equal(readAll(t, img), data) {
			t.Error("disk differs")
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		q.changeAndCompare("img", data)
	}
}

func (q *referee) exitCode(prog string, args ...string) int {
	q.t.Helper()
	cmd := exec.Command(prog, args...)
	cmd.Dir = q.dir
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		q.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}
