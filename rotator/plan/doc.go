// Package plan decides what is to be done about a policy. Everything in it is a pure function of the policy, of what was
// observed and of the time: it reads no clock, no file and no network, which its imports show.
package plan
