package imsg

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The encoding is deterministic (RFC 8949, 4.2.1) and the decoder strict:
// nothing that the encoder would not have written, and nothing that the
// receiving type has no place for.
var (
	enc = must(cbor.CoreDetEncOptions().EncMode())
	dec = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   8,
		MaxArrayElements:  4096,
		MaxMapPairs:       256,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Raw is a payload inside a payload, left for somebody else to decode.
type Raw = cbor.RawMessage

// Marshal returns v in CBOR.
func Marshal(v any) ([]byte, error) {
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes payload b into v. The error is an ErrFormat.
func Unmarshal(b []byte, v any) error {
	if err := dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %T: %w", ErrFormat, v, err)
	}
	return nil
}
