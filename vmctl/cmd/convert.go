package cmd

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"vmd/hv/disk"
	"vmd/hv/disk/qcow2"
)

// errRead marks an error of the source.
var errRead = errors.New("failed to read from source")

// convert makes the image path out of another one.
func (t *tool) convert(path, format string, o createOptions) error {
	in, length, err := openSource(o.input)
	if err != nil {
		return failf("failed to open source image file: %s", strerror(err))
	}
	defer in.Close()
	size := max(o.size, length)
	if o.size != 0 && o.size < length {
		return failf("size cannot be smaller than input disk size")
	}
	rounded := (size + megabyte - 1) &^ (megabyte - 1)
	err = makeImage(path, func(f *os.File) error {
		if format == formatRaw {
			if err := f.Truncate(rounded); err != nil {
				return err
			}
			return t.copySparse(f, in, length)
		}
		if err := qcow2.Create(f, qcow2.Options{Size: rounded}); err != nil {
			return err
		}
		return t.copyToQcow2(f.Name(), in, length)
	})
	switch {
	case errors.Is(err, os.ErrExist):
		return failf("create imagefile operation failed: %s", strerror(err))
	case errors.Is(err, errRead):
		return failf("%s: %s", errRead, strerror(err))
	case err != nil:
		return failf("failed to write to destination: %s", strerror(err))
	}
	t.warn("%s imagefile created", format)
	if rounded != size {
		t.warn("destination size rounded to %d megabytes", rounded/megabyte)
	}
	return nil
}

// source is an image to copy from.
type source interface {
	io.ReaderAt
	io.Closer
}

// openSource opens a disk argument for reading and returns its length.
func openSource(arg string) (source, int64, error) {
	path, format, _ := diskFormat(arg)
	if format == formatQcow2 {
		files, err := openChain(path)
		if err != nil {
			return nil, 0, err
		}
		img, err := qcow2.OpenChain(files, true)
		if err != nil {
			return nil, 0, err
		}
		return imageFile{img}, img.Size(), nil
	}
	// As a file and not as a disk.Raw: a length that is not a whole number of
	// sectors is copied to its end.
	f, err := os.OpenFile(path, openFlags(os.O_RDONLY), 0)
	if err != nil {
		return nil, 0, err
	}
	length, err := f.Seek(0, io.SeekEnd) // of a block device, too
	if err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && st.IsDir() {
			err = errors.New("it is a directory")
		}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, length, nil
}

// openChain opens the qcow2 image path and all that it is based on, with the
// rights of the caller. A name in an image is meant from that image's
// directory.
func openChain(path string) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	for format := formatQcow2; path != ""; {
		if len(files) == qcow2.MaxChain {
			return files, failf("more than %d images in a chain", qcow2.MaxChain)
		}
		real, err := absolute(path)
		if err != nil {
			return files, err
		}
		f, err := os.OpenFile(real, openFlags(os.O_RDONLY), 0)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		if format == formatRaw {
			break
		}
		h, err := header(f)
		if err != nil {
			return files, err
		}
		path, format = h.BackingName, h.BackingFormat
		if path != "" && !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(real), path)
		}
	}
	return files, nil
}

// imageFile reads and writes a disk.Image as if it were a file.
type imageFile struct{ disk.Image }

func (f imageFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.ReadAtV([][]byte{b}, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteAt writes b, and zeros up to the next sector.
func (f imageFile) WriteAt(b []byte, off int64) (int, error) {
	n := len(b)
	if rest := n % disk.SectorSize; rest != 0 {
		b = append(bytes.Clone(b), make([]byte, disk.SectorSize-rest)...)
	}
	if err := f.WriteAtV([][]byte{b}, off); err != nil {
		return 0, err
	}
	return n, nil
}

// copyToQcow2 fills the image that has been made at path.
func (t *tool) copyToQcow2(path string, in io.ReaderAt, length int64) error {
	f, err := os.OpenFile(path, openFlags(os.O_RDWR), 0)
	if err != nil {
		return err
	}
	img, err := qcow2.Open(f, nil, false)
	if err != nil {
		return err
	}
	err = t.copySparse(imageFile{img}, in, length)
	if err == nil {
		err = img.Flush()
	}
	return errors.Join(err, img.Close())
}

// copyUnit is how much is copied, or left out as zeros, at a time.
const copyUnit = 64 << 10

// copySparse copies length bytes, leaving out what is all zeros: out has a hole
// there.
func (t *tool) copySparse(out io.WriterAt, in io.ReaderAt, length int64) error {
	buf, zeros := make([]byte, copyUnit), make([]byte, copyUnit)
	p := t.progress(length)
	defer p.end()
	for off := int64(0); off < length; off += copyUnit {
		p.at(off)
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
