package cmd

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (t *tool) createCmd() *cobra.Command {
	var o createOptions
	c := &cobra.Command{
		Use:   "create [-b base | -i disk] [-s size] disk",
		Short: "make a disk image",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{cmd: c}
			}
			if o.base != "" && o.input != "" {
				return failf("conflicting -b and -i arguments")
			}
			path, format, _ := diskFormat(args[0])
			if o.base != "" && format != qcow2 {
				return failf("base images require qcow2 disk format")
			}
			if o.size == 0 && o.base == "" && o.input == "" {
				return &usageError{cmd: c, text: "could not create " + path + ": missing size argument"}
			}
			return t.create(path, format, o)
		},
	}
	c.Flags().StringVarP(&o.base, "base", "b", "", "")
	c.Flags().StringVarP(&o.input, "input", "i", "", "")
	c.Flags().FuncP("size", "s", "", func(word string) (err error) {
		o.size, err = t.parseSize("disk", word)
		return err
	})
	return c
}

type createOptions struct {
	base, input string
	size        int64
}

func (t *tool) create(path, format string, o createOptions) error {
	if format == qcow2 {
		return failf("create imagefile operation failed: qcow2 images are not supported yet")
	}
	if o.input != "" {
		return t.convert(path, o)
	}
	if err := makeImage(path, func(f *os.File) error { return f.Truncate(o.size) }); err != nil {
		return failf("create imagefile operation failed: %s", strerror(err))
	}
	t.warn("%s imagefile created", format)
	return nil
}

// makeImage makes the file path, which must not exist, and has fill fill it.
// After an error there is no file.
func makeImage(path string, fill func(*os.File) error) error {
	// O_EXCL does not follow a link either (open(2)).
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// errRead marks an error of the source.
var errRead = errors.New("failed to read from source")

// convert makes the raw image path out of another raw image.
func (t *tool) convert(path string, o createOptions) error {
	source, format, _ := diskFormat(o.input)
	if format != raw {
		return failf("failed to open source image file: qcow2 images are not supported yet")
	}
	in, err := os.OpenFile(source, openFlags(os.O_RDONLY), 0)
	if err != nil {
		return failf("failed to open source image file: %s", strerror(err))
	}
	defer in.Close()
	length, err := in.Seek(0, io.SeekEnd) // of a block device, too
	if err != nil {
		return failf("failed to open source image file: %s", strerror(err))
	}
	size := max(o.size, length)
	if o.size != 0 && o.size < length {
		return failf("size cannot be smaller than input disk size")
	}
	rounded := (size + megabyte - 1) &^ (megabyte - 1)
	err = makeImage(path, func(out *os.File) error {
		if err := out.Truncate(rounded); err != nil {
			return err
		}
		return t.copySparse(out, in, length)
	})
	switch {
	case errors.Is(err, os.ErrExist):
		return failf("create imagefile operation failed: %s", strerror(err))
	case errors.Is(err, errRead):
		return failf("%s: %s", errRead, strerror(err))
	case err != nil:
		return failf("failed to write to destination: %s", strerror(err))
	}
	t.warn("%s imagefile created", raw)
	if rounded != size {
		t.warn("destination size rounded to %d megabytes", rounded/megabyte)
	}
	return nil
}

// copyUnit is how much is copied, or left out as zeros, at a time.
const copyUnit = 64 << 10

// copySparse copies length bytes, leaving out what is all zeros: out has a hole
// there.
func (t *tool) copySparse(out io.WriterAt, in io.ReaderAt, length int64) error {
	buf, zeros := make([]byte, copyUnit), make([]byte, copyUnit)
	for off := int64(0); off < length; off += copyUnit {
		b := buf[:min(copyUnit, length-off)]
		if _, err := in.ReadAt(b, off); err != nil {
			return errors.Join(errRead, err)
		}
		if bytes.Equal(b, zeros[:len(b)]) {
			continue
		}
		t.debug("copying %d bytes at %d", len(b), off)
		if _, err := out.WriteAt(b, off); err != nil {
			return err
		}
	}
	return nil
}
