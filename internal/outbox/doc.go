// Package outbox bounds what large answers cost, whoever asks and however slowly they read.
package outbox
