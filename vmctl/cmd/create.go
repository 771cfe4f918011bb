package cmd

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vmd/hv/disk/qcow2"
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
			if o.base != "" && format != formatQcow2 {
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
		var warning string
		if o.size, warning, err = parseSize("disk", word); warning != "" {
			t.warn("%s", warning)
		}
		return err
	})
	return c
}

type createOptions struct {
	base, input string
	size        int64
}

func (t *tool) create(path, format string, o createOptions) error {
	if o.input != "" {
		return t.convert(path, format, o)
	}
	image := qcow2.Options{Size: o.size}
	if o.base != "" {
		if err := o.overlay(&image); err != nil {
			return err
		}
	}
	err := makeImage(path, func(f *os.File) error {
		if format == formatQcow2 {
			return qcow2.Create(f, image)
		}
		return f.Truncate(o.size)
	})
	if err != nil {
		return failf("create imagefile operation failed: %s", strerror(err))
	}
	t.warn("%s imagefile created", format)
	return nil
}

// overlay makes image one that holds the changes to o.base.
func (o createOptions) overlay(image *qcow2.Options) error {
	// An absolute name: a relative one would be looked for in the overlay's
	// directory, and the caller means his own.
	path, err := absolute(o.base)
	if err != nil {
		return failf("failure to read base image header: %s: %s", o.base, strerror(err))
	}
	f, err := os.OpenFile(path, openFlags(os.O_RDONLY), 0)
	if err != nil {
		return failf("failure to read base image header: %s: %s", o.base, strerror(err))
	}
	defer f.Close()
	h, err := header(f)
	switch {
	case errors.Is(err, qcow2.ErrNotQcow2):
		return failf("base image is not a qcow2 file")
	case err != nil:
		return failf("failure to read base image header: %s", strerror(err))
	case o.size != 0 && o.size != h.Size:
		return failf("base size does not match requested size")
	}
	image.Size, image.BackingName, image.BackingFormat = h.Size, path, formatQcow2
	return nil
}

// header reads the header of a qcow2 image.
func header(f *os.File) (qcow2.Header, error) {
	st, err := f.Stat()
	if err != nil {
		return qcow2.Header{}, err
	}
	return qcow2.Info(f, st.Size())
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
