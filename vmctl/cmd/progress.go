package cmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"vmd/internal/scaled"
)

// progress shows how far something long has got, on a terminal only: others
// get messages, and nothing between them. The zero value shows nothing.
type progress struct {
	w     io.Writer
	total int64
	shown time.Time
	rate  bool // show how fast it is, too
	begun time.Time
}

// progressPause is the least time from one change of the picture to the next.
const progressPause = 100 * time.Millisecond

// progress returns one for total bytes.
func (t *tool) progress(total int64) *progress {
	if t.verbose || total == 0 || !onTerminal(t.err) {
		return &progress{}
	}
	return &progress{w: t.err, total: total, begun: time.Now()}
}

// at shows that done bytes are done.
func (p *progress) at(done int64) {
	if p.w == nil {
		return
	}
	if now := time.Now(); now.Sub(p.shown) >= progressPause {
		p.shown = now
		text := bar(min(done, p.total), p.total)
		if p.rate {
			text = withRate(text, done, now.Sub(p.begun)) + "\x1b[K"
		}
		fmt.Fprint(p.w, "\r"+text)
	}
}

// end takes the picture away (ECMA-48, 8.3.41).
func (p *progress) end() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

const barWidth = 40

// bar draws done of total bytes.
func bar(done, total int64) string {
	part := float64(done) / float64(total)
	full := int(part * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%% of %s", strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), part*100,
		scaled.Format(uint64(total)))
}

// withRate is a picture's text with the rate of done bytes since begun.
func withRate(text string, done int64, took time.Duration) string {
	if took <= 0 {
		return text
	}
	return fmt.Sprintf("%s, %s/s", text, scaled.Format(uint64(float64(done)/took.Seconds())))
}
