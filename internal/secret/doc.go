// Package secret keeps credentials from being printed by accident, and cuts them out of text from other programs.
package secret
