// Package ledger defines rekeyd's durable documents: a policy's entry, a group's holds and the record that readers read, and the
// [Store] that keeps them. They are the state that survives a crash.
package ledger
