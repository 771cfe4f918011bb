// Package statefile keeps one value on disk such that a loss of power at any
// moment leaves either the value before or the value after.
//
// A file is one line of header and the value as JSON:
//
//	vmd-state 1 SHA256 LENGTH
//
// It is written beside its place, made durable, and renamed over the one
// before, which stays as NAME.prev until the next time.
package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const magic = "vmd-state 1"

// maxSize bounds what Load reads.
const maxSize = 64 << 20

// ErrDamaged says that a file is not what Save wrote.
var ErrDamaged = errors.New("state file is damaged")

// Save writes v to the file at path. When it returns without an error, v is on
// stable storage.
func Save(path string, v any) error {
	data, err := encode(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	tmp := path + ".new"
	if err := writeSynced(tmp, data); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	if err := keepPrevious(path); err != nil {
		return fmt.Errorf("save %s: keep the one before: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Load reads the file at path into v. If it is damaged, what was there before
// it is read instead and old is why. No file at all leaves v alone; the error is
// for when there is something and none of it can be read: then neither is
// touched, so that somebody can look.
func Load(path string, v any) (old, err error) {
	err = load(path, v)
	if err == nil {
		return nil, nil
	}
	prevErr := load(path+".prev", v)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case prevErr == nil:
		return err, nil
	case missing && errors.Is(prevErr, fs.ErrNotExist):
		return nil, nil
	case missing:
		return nil, prevErr
	}
	return nil, err
}

func encode(v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	head := fmt.Sprintf("%s %s %d\n", magic, hex.EncodeToString(sum[:]), len(body))
	return append([]byte(head), body...), nil
}

// decode reads into v what encode wrote, every byte of it.
func decode(data []byte, v any) error {
	head, body, ok := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(body)
	want := fmt.Sprintf("%s %s %d", magic, hex.EncodeToString(sum[:]), len(body))
	switch {
	case !ok || !bytes.HasPrefix(head, []byte("vmd-state ")):
		return fmt.Errorf("%w: it has no header", ErrDamaged)
	case !bytes.HasPrefix(head, []byte(magic+" ")):
		return fmt.Errorf("%w: it is of another version of vmd", ErrDamaged)
	case string(head) != want:
		return fmt.Errorf("%w: its checksum or length is wrong", ErrDamaged)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func load(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := decode(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// keepPrevious gives the file at path, if there is one, a second name. A damaged
// one is not worth keeping, and must not replace a good one.
func keepPrevious(path string) error {
	var any json.RawMessage
	if err := load(path, &any); err != nil {
		return nil
	}
	tmp := path + ".prev.new"
	os.Remove(tmp)
	if err := os.Link(path, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path+".prev")
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
