// Package plan decides what to do about a policy. It consists of pure functions of the policy, the observation and the time: it
// reads no clock, file or network, as its imports show.
package plan
