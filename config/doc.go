// Package config reads the environment ([LoadEnv]) and the policy file ([LoadPolicies]).
//
// Both report every fault at once, each as one sentence: where it is, what was found and what to write instead. Struct
// tags describe the fields; the help text, the reference page and the JSON Schema are generated from the same tags, so
// they match what is accepted.
//
// The policy file is read in two passes. The first checks structure, as a JSON Schema can: names, types, patterns and
// words. The second checks meaning: schedules, zones, permissions, addresses, and the relations between durations, paths
// and policies. Neither stops at its first fault.
package config
