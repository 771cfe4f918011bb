//go:build cgo

package privsep

// usesCgo: the C library has threads and a way of its own to change their
// privileges, which needs /proc and so never returns in an empty root.
const usesCgo = true
