// Package rotator keeps the API keys of service accounts as their policies say.
//
// A policy flows one way. [Rotator.Load] takes it; cron, a listing of its workspace or the end of an overlap has it
// looked at; what is known of it (ledger entry, record, listed keys) becomes a [plan.Observed]; [plan.Plan], a pure function,
// says what is to be done and why; one step of that is carried out, and everything is looked at again.
//
// A rotation reads from top to bottom in rotate.go:
//
//	intend     check that a key could be stored; claim and intent in one ledger write
//	lookAgain  read the record under the claim; is the rotation still called for?
//	create     once: the call cannot be repeated, and shows the secret once
//	verify     does the new key work?
//	inspect    is it listed, enabled, with the settings that were asked for?
//	publish    write the record by check-and-set, and read it back
//	commit     make the key current, and start the old one on its way out
//
// One that stops before create is released; one that stops after it, for whatever cause, is settled (recover.go) from what is
// then found: a record that holds the intent's key is rolled forward, a key whose secret is nowhere is abandoned and deleted by
// id. Former keys leave through overlap and quarantine (retire.go), each time only after it was seen again that no reader needs
// them.
//
// Any number of processes may do this beside each other. They meet only in the ledger ([ledger.Entry], and group.go for keys
// that must not change together), which they write by check-and-set, and in the record. The holder of an entry's claim is the
// only one to write it; a claim that was seen unchanged for a claim TTL may be taken over, and the takeover first moves the
// record to a new version, so that a holder that was merely frozen can no longer publish.
package rotator
