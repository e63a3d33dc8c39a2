// Package ledger has the durable documents of rekeyd: the entry of a policy, the holds of a group and the record that
// readers read, with the [Store] that keeps them. They are the state that survives a crash.
package ledger
