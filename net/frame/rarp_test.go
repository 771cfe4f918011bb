package frame

import (
	"encoding/hex"
	"testing"
)

func TestRARP(t *testing.T) {
	want := "ffffffffffff" + "020000000007" + "8035" + "0001" + "0800" + "06" + "04" + "0003" +
		"020000000007" + "00000000" + "020000000007" + "00000000" + "000000000000000000000000000000000000"
	if got := hex.EncodeToString(RARP([6]byte{2, 5: 7})); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
