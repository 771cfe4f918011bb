package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cacheDir is where built images are kept: the user's cache folder, or the
// one for temporary files for a user who has no home.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	dir = filepath.Join(dir, "vmd-lab")
	return dir, os.MkdirAll(dir, 0o700)
}

// cached returns the folder of the cache whose name is kind and the hash of
// inputs. If it is not there, build fills it.
func cached(kind string, inputs []string, build func(dir string) error) (string, error) {
	root, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(inputs, "\x00")))
	dir := filepath.Join(root, fmt.Sprintf("%s-%x", kind, sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		os.Chtimes(dir, now, now)
		return dir, nil
	}
	prune(root, kind)
	tmp, err := os.MkdirTemp(root, ".new")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := build(tmp); err != nil {
		return "", err
	}
	// Whoever builds the same at the same time may have been faster.
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return "", err
		}
	}
	return dir, nil
}

// keepUnused is how long an image that nothing asks for stays.
const keepUnused = 24 * time.Hour

// prune removes what was not used for a while.
func prune(root, kind string) {
	for _, pattern := range []string{kind + "-*", ".new*"} {
		old, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, dir := range old {
			if fi, err := os.Stat(dir); err == nil && time.Since(fi.ModTime()) > keepUnused {
				os.RemoveAll(dir)
			}
		}
	}
}

// stamp identifies a file of the host without reading it.
func stamp(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return path + " " + err.Error()
	}
	return fmt.Sprintf("%s %d %d", path, fi.Size(), fi.ModTime().UnixNano())
}

// oneAtATime waits until no other lab of this user runs: a machine keeps one
// processor busy for itself, and two would time each other out. It waits in the
// kernel, which lets in whoever came first.
func oneAtATime(ctx context.Context) (unlock func(), err error) {
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error)
	go func() {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		for err == unix.EINTR {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		select {
		case locked <- err:
		case <-ctx.Done():
			f.Close()
		}
	}()
	select {
	case err = <-locked:
	case <-ctx.Done():
		return nil, fmt.Errorf("another lab is running: %w", ctx.Err())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// bytesLines returns the lines of b without their ends.
func bytesLines(b []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range bytes.Lines(b) {
			if !yield(strings.TrimRight(string(line), "\r\n")) {
				return
			}
		}
	}
}
