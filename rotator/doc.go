// Package rotator keeps the API keys of service accounts as their policies say.
//
// A policy flows one way. [Rotator.Load] takes it; its schedule, a listing of its workspace or the end of an overlap wakes it; what is
// known of it (ledger entry, record, listed keys) becomes a [plan.Observed]; [plan.Plan], a pure function, decides what to do
// and why; the rotator performs one step of that and observes again. A step returns an outcome, and what follows from a
// failure (log, counts, events, the next try) is done in one place, conclude (outcome.go).
//
// A rotation reads from top to bottom in rotate.go:
//
//	intend     check that a key could be stored; claim and intent in one ledger write
//	lookAgain  read the record under the claim; is the rotation still due?
//	create     once: a second call would make a second key, and the secret is shown only once
//	verify     does the new key work?
//	probePaths can it read what the policy probes?
//	inspect    is it listed and enabled, with the requested settings?
//	publish    write the record by check-and-set, and read it back
//	commit     make the key current and start retiring the old one
//
// A rotation that stops before create is released. A rotation that stops later, for any reason, is settled from what is found
// (recover.go): if the record holds the intent's key it is rolled forward, and a key whose secret is stored nowhere is abandoned
// and deleted by id. Former keys pass through overlap and quarantine (retire.go); each step first checks again that no reader
// needs them.
//
// Any number of processes may run side by side. They share only the record and the ledger ([ledger.Entry], and group.go for
// keys that must not change together), and write both by check-and-set. Only the claim holder writes an entry. A claim that
// stays unchanged for a claim TTL may be taken over; the takeover first moves the record to a new version, so that a frozen
// holder can no longer publish.
//
// The files have an order, from the values that know no Rotator to Run: a file uses only what those below it declare, but for two
// arrows that are explained (internal/archtest/files_test.go).
package rotator
