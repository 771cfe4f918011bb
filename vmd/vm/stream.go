package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"vmd/internal/vmop"
)

// streamPatience is how long the other side of a stream may keep still before
// it is given up.
const streamPatience = time.Minute

// stream is the socket through which a guest comes or goes. No read or write of
// it takes longer than streamPatience.
type stream struct {
	f   *os.File
	cut atomic.Bool // nothing is to be written any more
}

// newStream makes a stream of a socket, and owns it.
func newStream(f *os.File) (*stream, error) {
	f, err := pollable(f)
	if err != nil {
		return nil, fmt.Errorf("use the stream: %w", err)
	}
	return &stream{f: f}, nil
}

func (s *stream) Read(p []byte) (int, error) {
	s.f.SetReadDeadline(time.Now().Add(streamPatience))
	n, err := s.f.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("nothing has come for %v", streamPatience)
	}
	return n, err
}

// streamPiece is how much has to go in streamPatience.
const streamPiece = 64 << 10

func (s *stream) Write(p []byte) (done int, err error) {
	for done < len(p) && err == nil {
		s.f.SetWriteDeadline(time.Now().Add(streamPatience))
		if s.cut.Load() { // perhaps before the deadline was set
			return done, os.ErrDeadlineExceeded
		}
		var n int
		n, err = s.f.Write(p[done:min(len(p), done+streamPiece)])
		done += n
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !s.cut.Load() {
		err = fmt.Errorf("nothing could be sent for %v", streamPatience)
	}
	return done, err
}

// SetWriteDeadline ends writing, whatever the time: it is how state.Writer is
// interrupted, which knows one only that is long over.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.cut.Store(true)
	return s.f.SetWriteDeadline(t)
}

// word reads one of vmop.Words.
func (s *stream) word() (string, error) {
	var b [vmop.WordLen]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return "", err
	}
	return string(b[:]), nil
}

// expect reads a word that has to be want.
func (s *stream) expect(want string) error {
	got, err := s.word()
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the receiver is gone")
	case err != nil:
		return fmt.Errorf("hear of the receiver: %w", err)
	case got == vmop.WordFailed:
		return errors.New("the receiver could not use it")
	case got != want:
		return fmt.Errorf("the receiver said %.20q instead of %q", got, want)
	}
	return nil
}

func (s *stream) say(word string) error {
	_, err := io.WriteString(s, word)
	return err
}

// Close may be called from any goroutine, and ends what the others are at.
func (s *stream) Close() { s.f.Close() }
