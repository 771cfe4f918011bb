package disk

// Quiescer is an Image that keeps in memory what other users of its file need.
type Quiescer interface {
	Image
	// Quiesce is Flush and leaves the file as Close would: whoever opens it
	// finds all that was written, and nothing to repair. It waits for requests
	// that are running. The image stays in use: it may go on, and then the
	// file is no longer anybody else's to open.
	Quiesce() error
}

// Quiesce makes img's file ready to be opened by somebody else, as when its
// guest moves to another process. The caller sees to it that nobody writes
// until it is known which of the two goes on.
func Quiesce(img Image) error {
	if q, ok := img.(Quiescer); ok {
		return q.Quiesce()
	}
	return img.Flush()
}
