package notation

import "testing"

func TestMAC(t *testing.T) {
	if got, want := MAC([6]byte{0xfe, 0xe1, 0, 0x0b, 0, 1}), "fe:e1:00:0b:00:01"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestUUID(t *testing.T) {
	u := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xfe, 0xff}
	if got, want := UUID(u), "00010203-0405-0607-0809-0a0b0c0dfeff"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
