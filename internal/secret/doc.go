// Package secret holds credentials so that they are not printed by accident, and cuts them out of texts that others wrote.
package secret
