package state

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The encoding is deterministic (RFC 8949, 4.2.1): the same state is the same
// bytes. The decoder takes nothing that the encoder would not have written and
// nothing that the receiving struct has no place for: a field that a receiver
// does not know is state that it would lose.
var (
	enc = must(cbor.CoreDetEncOptions().EncMode())
	dec = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   8,
		MaxArrayElements:  8192,
		MaxMapPairs:       256,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Encode returns v, a struct with `cbor:"1,keyasint"` tags, in CBOR.
func Encode(v any) ([]byte, error) {
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Decode fills v, a pointer to a struct, from b. What it holds is still to be
// checked: whoever wrote b is not known.
func Decode(b []byte, v any) error {
	if err := dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %T: %w", ErrFormat, v, err)
	}
	return nil
}
