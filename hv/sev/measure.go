package sev

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// Launch is how a guest was launched, for its owner.
type Launch struct {
	Kind   Kind
	Policy Policy
	// Digest is the SHA-256 of all memory that was encrypted, in its order: the
	// launch digest of a SEV guest. That of a SEV-ES guest goes on with the
	// pages of its vCPUs' registers, which KVM makes and shows nobody.
	Digest      [32]byte
	Measurement Measurement
}

// Measurement is what the firmware says it has launched. Who has the integrity
// key of the session can check it.
type Measurement struct {
	HMAC  [32]byte
	Nonce [16]byte
}

const measurementSize = 32 + 16

// measureTag is the first byte of what is authenticated (SEV API 55766, 6.5.1).
const measureTag = 0x04

// Measure is what firmware with version api and build answers for a guest with
// policy p and launch digest ld, in a session whose integrity key is tik
// (SEV API 55766, 6.5.1).
func Measure(tik []byte, api API, build uint8, p Policy, ld [32]byte, nonce [16]byte) Measurement {
	m := Measurement{Nonce: nonce}
	h := hmac.New(sha256.New, tik)
	h.Write([]byte{measureTag, api.Major, api.Minor, build})
	h.Write(binary.LittleEndian.AppendUint32(nil, uint32(p)))
	h.Write(ld[:])
	h.Write(nonce[:])
	h.Sum(m.HMAC[:0])
	return m
}

// Verify says whether m is what Measure computes: the guest is the one with
// digest ld, and nothing else. It takes the same time whatever the answer.
func (m Measurement) Verify(tik []byte, api API, build uint8, p Policy, ld [32]byte) bool {
	want := Measure(tik, api, build, p, ld, m.Nonce)
	return hmac.Equal(m.HMAC[:], want.HMAC[:])
}
