package qcow2

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"vmd/hv/disk"
)

// MaxChain is how many files an image and the images below it may be, as in
// vmd(8) of OpenBSD.
const MaxChain = 4

// OpenChain makes a disk of the image in files[0] and those below it, each the
// base of the one before. An image's header says what format its base has; a
// base is never guessed at, since a guest may have written what a raw image
// begins with. OpenChain owns files from then on, also if it fails.
func OpenChain(files []*os.File, readOnly bool) (disk.Image, error) {
	img, left, err := openChain(files, readOnly)
	if err == nil && len(left) > 0 {
		err = errors.Join(fmt.Errorf("qcow2 image %q needs %d files, but was given %d", files[0].Name(), len(files)-len(left), len(files)), img.Close())
	}
	if err != nil {
		for _, f := range left {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return img, nil
}

// openChain returns the files that it does not own.
func openChain(files []*os.File, readOnly bool) (img *Image, left []*os.File, err error) {
	if len(files) == 0 || len(files) > MaxChain {
		return nil, files, fmt.Errorf("qcow2 image in %d files: want 1 to %d", len(files), MaxChain)
	}
	f, left := files[0], files[1:]
	h, err := infoOf(f)
	if err != nil {
		return nil, files, fmt.Errorf("qcow2 image %q: %w", f.Name(), err)
	}
	var base disk.Image
	switch {
	case h.BackingName == "" || len(left) == 0: // Open knows if one is missing
	case h.BackingFormat == "raw":
		base, err = disk.NewRaw(left[0], true)
		left = left[1:]
	case h.BackingFormat == "qcow2" || h.BackingFormat == "":
		base, left, err = openBase(left)
	default:
		err = unsupported("base image of format %q", h.BackingFormat)
	}
	if err != nil {
		return nil, slices.Concat(left, files[:1]), err
	}
	img, err = Open(f, base, readOnly)
	return img, left, err
}

// openBase keeps a nil *Image from becoming a disk.Image.
func openBase(files []*os.File) (disk.Image, []*os.File, error) {
	img, left, err := openChain(files, true)
	if err != nil {
		return nil, left, err
	}
	return img, left, nil
}

func infoOf(f *os.File) (Header, error) {
	o, err := newOSFile(f)
	if err != nil {
		return Header{}, err
	}
	return Info(f, o.size)
}
