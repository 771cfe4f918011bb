//go:build !cgo

package privsep

const usesCgo = false
