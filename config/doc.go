// Package config reads what a person tells rekeyd: the environment ([LoadEnv]) and the policy file ([LoadPolicies]).
//
// Both report every fault at once, each as one sentence that says where it is, what was found and what to write
// instead. Both are described by struct tags where their fields are declared; the help text, the reference page and
// the JSON Schema are made from those same tags, so none of them can drift from what is accepted.
//
// The policy file is read in two passes. The first knows structure only: names, types, patterns, words, which is
// all that a JSON Schema can say too. The second knows meaning: schedules, zones, permissions, addresses, and the
// relations between durations, paths and policies. Neither stops at its first fault.
package config
