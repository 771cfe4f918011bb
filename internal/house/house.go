// Package house holds tests of the house rules: who may import whom, where
// unsafe code lives, what the text of the tree looks like. It has no code of
// its own; the tables are in edges_test.go.
package house
