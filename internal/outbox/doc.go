// Package outbox bounds the cost of large answers, for any number of clients, however slowly they read.
package outbox
