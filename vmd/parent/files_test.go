package parent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/disk/qcow2"
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

func tempFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// wantError checks the code of err, and that it names what it is about.
func wantError(t *testing.T, err error, want vmop.Code, names string) {
	t.Helper()
	if err == nil || codeOf(err) != want || !strings.Contains(err.Error(), names) {
		t.Errorf("error %v (%v), want %v about %q", err, codeOf(err), want, names)
	}
}

func TestOpen(t *testing.T) {
	name := tempFile(t, "x")
	f, err := diskFile.open(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = diskFile.open(name)
	wantError(t, err, vmop.ErrDiskLocked, name)
	if k, err := kernelFile.open(name); err != nil {
		t.Errorf("a kernel needs no lock: %v", err)
	} else {
		k.Close()
	}
	f.Close()
	if f, err = diskFile.open(name); err != nil {
		t.Fatalf("lock outlives its file: %v", err)
	}
	f.Close()

	_, err = diskFile.open(name + ".none")
	wantError(t, err, vmop.ErrDisk, name+".none")
	_, err = kernelFile.open(filepath.Dir(name))
	wantError(t, err, vmop.ErrKernel, "not a regular file")
	fifo := name + ".fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = cdromFile.open(fifo) // and does not wait for a writer
	wantError(t, err, vmop.ErrCDROM, "not a regular file")
	_, err = kernelFile.open("/dev/null")
	wantError(t, err, vmop.ErrKernel, "not a regular file")
	_, err = kernelFile.open("/proc/self/fd/0")
	wantError(t, err, vmop.ErrKernel, "too many levels of symbolic links")
}

// TestTake: descriptors of clients are only taken as what they are to be.
func TestTake(t *testing.T) {
	name := tempFile(t, "x")
	open := func(flags int) *os.File {
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	wantError(t, diskFile.take(open(os.O_RDONLY), name, false), vmop.ErrDisk, "writing")
	wantError(t, diskFile.take(open(os.O_RDWR|os.O_APPEND), name, false), vmop.ErrDisk, "O_APPEND")
	wantError(t, kernelFile.take(open(os.O_WRONLY), name, false), vmop.ErrKernel, "reading")
	wantError(t, kernelFile.take(open(unix.O_PATH), name, false), vmop.ErrKernel, "reading")
	if err := kernelFile.take(open(os.O_RDONLY), name, false); err != nil {
		t.Error(err)
	}
	held := open(os.O_RDWR)
	if err := diskFile.take(held, name, false); err != nil {
		t.Error(err)
	}
	wantError(t, diskFile.take(open(os.O_RDWR), name, false), vmop.ErrDiskLocked, "in use")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	wantError(t, kernelFile.take(r, "pipe", true), vmop.ErrKernel, "not a regular file")
}

func TestInspect(t *testing.T) {
	made := filepath.Join(t.TempDir(), "made")
	makeImage(t, made, qcow2.Options{Size: 2 << 32})
	b, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	image := string(b)
	for _, c := range []struct {
		name, content string
		want          config.Format
		format        string // "" for an error
		size          int64
	}{
		{"raw", strings.Repeat("r", 1024), config.FormatAuto, "raw", 1024},
		{"empty", "", config.FormatAuto, "raw", 0},
		{"qcow2 found", image, config.FormatAuto, "qcow2", 2 << 32},
		{"qcow2 said", image, config.FormatQcow2, "qcow2", 2 << 32},
		{"raw said", image, config.FormatRaw, "raw", int64(len(image))},
		{"not qcow2", "no", config.FormatQcow2, "", 0},
		{"no whole header", image[:40], config.FormatAuto, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.Open(tempFile(t, c.content))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			im, err := inspect(f, c.want)
			if (err == nil) != (c.format != "") {
				t.Fatalf("error %v", err)
			}
			if im.format != c.format || im.size != c.size {
				t.Errorf("%+v, want %s of %d", im, c.format, c.size)
			}
		})
	}
}

func TestCheckMemory(t *testing.T) {
	if err := checkMemory(1<<20, hostMemory()); err != nil {
		t.Error(err)
	}
	err := checkMemory(64<<20, 32<<20)
	wantError(t, err, vmop.ErrMemory, "64 MiB")
	wantError(t, err, vmop.ErrMemory, "32 MiB")
}
