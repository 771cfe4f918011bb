package sev

import (
	"encoding/hex"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMeasure(t *testing.T) {
	// Reckoned with Python's hashlib and hmac:
	//	hmac.new(bytes(range(16)), b"\x04\x01\x31\x18" + b"\x3b\0\0\0" +
	//	    hashlib.sha256(b"kernel").digest() + bytes(range(16, 32)), "sha256")
	tik := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	ld := [32]byte(unhex(t, "6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c"))
	nonce := [16]byte{16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}
	m := Measure(tik, API{1, 49}, 24, 0x3b, ld, nonce)
	if want := [32]byte(unhex(t, "61eb618c46b4cc11711dcd93ce5e3a3618e81bc7a3baa2c56e846914852a4dd4")); m.HMAC != want || m.Nonce != nonce {
		t.Errorf("measurement %x, want %x", m.HMAC, want)
	}
	if !m.Verify(tik, API{1, 49}, 24, 0x3b, ld) {
		t.Error("it does not verify")
	}
	other := ld
	other[31] ^= 1
	for name, ok := range map[string]bool{
		"another digest": m.Verify(tik, API{1, 49}, 24, 0x3b, other),
		"another policy": m.Verify(tik, API{1, 49}, 24, 0x3f, ld),
		"another API":    m.Verify(tik, API{1, 50}, 24, 0x3b, ld),
		"another build":  m.Verify(tik, API{1, 49}, 25, 0x3b, ld),
		"another key":    m.Verify(tik[1:], API{1, 49}, 24, 0x3b, ld),
		"another nonce":  Measurement{HMAC: m.HMAC}.Verify(tik, API{1, 49}, 24, 0x3b, ld),
		"no measurement": Measurement{}.Verify(tik, API{1, 49}, 24, 0x3b, ld),
	} {
		if ok {
			t.Errorf("%s verifies", name)
		}
	}
}
