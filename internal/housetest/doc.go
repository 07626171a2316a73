// Package housetest holds the rules of the house: who may import whom, what the agent links, who may look at the clock,
// which licences are in, whether pages name what is there and can be found, and what must not be written down in this repository. It has no code of its own, only tests;
// each rule stands beside its reason, and a failing test says the reason.
//
// `make golden` writes the lists of linked packages anew. Read the diff: a package that appears there runs as root on
// every machine.
package housetest
