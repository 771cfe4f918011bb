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
	dec = must(decOptions(cbor.ExtraDecErrorUnknownField).DecMode())

	// newer lets fields pass that the receiving type does not have.
	newer = must(decOptions(cbor.ExtraDecErrorNone).DecMode())
)

func decOptions(extra cbor.ExtraDecErrorCond) cbor.DecOptions {
	return cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: extra,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   8,
		MaxArrayElements:  4096,
		MaxMapPairs:       256,
	}
}

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

// UnmarshalNewer is Unmarshal for an answer that may come from a newer program:
// fields that v has no place for are passed over.
func UnmarshalNewer(b []byte, v any) error {
	if err := newer.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %T: %w", ErrFormat, v, err)
	}
	return nil
}
