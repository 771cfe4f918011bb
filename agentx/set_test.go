package agentx

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posteo/go-agentx/pdu"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

var setKinds = map[string]pdu.Type{
	"test": pdu.TypeTestSet, "commit": pdu.TypeCommitSet, "undo": pdu.TypeUndoSet, "cleanup": pdu.TypeCleanupSet,
}

// Each case is a sequence of PDUs of one transaction with the answers, and what
// of it reached the Handler.
func TestSets(t *testing.T) {
	cases := []struct {
		name    string
		steps   string
		refuse  uint16
		failing bool
		answers string
		done    string
	}{
		{"good", "test commit cleanup", 0, false, "0 0", "test commit"},
		{"bad", "test cleanup", 10, false, "10@1", "test"},
		{"taken back", "test commit undo", 0, false, "0 0 0", "test commit undo"},
		{"fails", "test commit undo", 0, true, "0 14 15", "test commit undo"},
		{"dropped", "test cleanup", 0, false, "0", "test"},
		{"commit of nothing", "commit", 0, false, "14", ""},
		{"commit of a bad one", "test commit cleanup", 17, false, "17@1 14", "test"},
		{"commit twice", "test commit commit cleanup", 0, false, "0 0 14", "test commit"},
		{"undo of nothing", "undo", 0, false, "0", ""},
		{"undo before commit", "test undo", 0, false, "0 0", "test"},
		{"undo after cleanup", "test commit cleanup undo", 0, false, "0 0 0", "test commit"},
		{"cleanup of nothing", "cleanup", 0, false, "", ""},
		{"repeated test", "test =test commit cleanup", 0, false, "0 0 0", "test commit"},
		{"repeated bad test", "test =test", 7, false, "7@1 7@1", "test"},
		{"repeated commit", "test commit =commit cleanup", 0, false, "0 0 0", "test commit"},
		{"repeated undo", "test commit undo =undo", 0, false, "0 0 0 0", "test commit undo"},
		{"repeated cleanup", "test commit cleanup =cleanup", 0, false, "0 0", "test commit"},
	}
	for _, c := range cases {
		orders(t, func(m *fakeMaster) {
			m.toy.refuse, m.toy.failing = c.refuse, c.failing
			var answers []string
			for step := range strings.FieldsSeq(c.steps) {
				again := step[0] == '='
				step = strings.TrimPrefix(step, "=")
				m.tx = 8
				if again {
					m.packet--
				}
				var body []byte
				if step == "test" {
					body = m.binds(VarBind{under(1), Value{Type: TypeInteger, Number: 1}})
				}
				if step == "cleanup" { // has no answer
					m.send(m.pduOf(setKinds[step], "", nil))
					synctest.Wait()
					continue
				}
				r := m.ask(setKinds[step], body)
				answers = append(answers, showError(r))
			}
			m.next(from(1)) // nothing is left in the stream
			if got := strings.Join(answers, " "); got != c.answers {
				m.t.Errorf("%s: answers %q, want %q", c.name, got, c.answers)
			}
			if got := strings.Join(m.toy.sets, " "); got != c.done {
				m.t.Errorf("%s: %q was done, want %q", c.name, got, c.done)
			}
		})
	}
}

func showError(r reply) string {
	s := r.code.String()
	s = s[strings.Index(s, "(")+1:]
	s = strings.TrimSuffix(s, ")")
	if r.code == 0 {
		s = "0"
	}
	if r.index != 0 {
		s += "@" + string('0'+rune(r.index))
	}
	return s
}

func TestSetOfALostSession(t *testing.T) {
	for steps, want := range map[string]string{
		"test":                "test",
		"test commit":         "test commit undo",
		"test commit cleanup": "test commit",
	} {
		withMaster(t, nil, func(m *fakeMaster) {
			m.join()
			for step := range strings.FieldsSeq(steps) {
				m.tx = 3
				m.send(m.pduOf(setKinds[step], "", nil))
				if step != "cleanup" {
					m.reply()
				}
				synctest.Wait()
			}
			m.hangUp()
			m.join()
			if got := strings.Join(m.toy.sets, " "); got != want {
				m.t.Errorf("%s, then nothing: %q was done, want %q", steps, got, want)
			}
		})
	}
}

// A master that never cleans up leaves nothing for ever.
func TestSetsAreForgotten(t *testing.T) {
	now := time.Unix(1000, 0)
	var l sets
	for i := range uint32(20) {
		l.expire(now)
		l = append(l, &transaction{id: i, until: now.Add(setLife)})
		if len(l) > maxSets {
			t.Fatalf("%d sets", len(l))
		}
	}
	l.expire(now.Add(setLife + 1))
	if len(l) != 0 {
		t.Errorf("%d sets after their time", len(l))
	}
}
