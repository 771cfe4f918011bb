package cmd

// action is what a key asks of the session, rather than of the guest.
type action int

const (
	actNone action = iota
	actDisconnect
	actBreak
	actSuspend
	actHelp
)

// escapeHelp is what ~? prints.
const escapeHelp = "\r\n" +
	"~.   disconnect (also ~^D)\r\n" +
	"~#   send a BREAK\r\n" +
	"~^Z  suspend\r\n" +
	"~~   send one ~\r\n" +
	"~?   this list\r\n"

// escapes finds the escapes of cu(1) in what is typed: a tilde after a newline
// or at the very beginning, and the key behind it.
type escapes struct {
	state escapeState
}

type escapeState int

const (
	atLineStart escapeState = iota
	inLine
	afterTilde
)

// next looks at one key. It appends what the guest gets to out.
func (e *escapes) next(out []byte, key byte) ([]byte, action) {
	switch e.state {
	case atLineStart:
		if key == '~' {
			e.state = afterTilde
			return out, actNone
		}
	case afterTilde:
		if act := escapeKeys[key]; act != actNone {
			e.state = atLineStart
			return out, act
		}
		out = append(out, '~')
		if key == '~' {
			e.state = inLine
			return out, actNone
		}
	}
	e.state = inLine
	if key == '\r' || key == '\n' {
		e.state = atLineStart
	}
	return append(out, key), actNone
}

// escapeKeys are the keys after a tilde.
var escapeKeys = map[byte]action{
	'.':    actDisconnect,
	'\x04': actDisconnect,
	'#':    actBreak,
	'\x1a': actSuspend,
	'?':    actHelp,
}
