package main

import (
	"bufio"
	"context"
	"strings"
)

// answer returns the line that a person types; "" at an interrupt. The end of the input is not a yes.
func (a app) answer(ctx context.Context) string {
	line, _ := interruptible(ctx, func() ([]byte, error) { return bufio.NewReader(a.stdin).ReadBytes('\n') })
	return strings.TrimSpace(string(line))
}

// interruptible returns what read returns, unless ctx ends first: an interrupt must not wait for input.
func interruptible(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type input struct {
		text []byte
		err  error
	}
	done := make(chan input, 1)
	go func() {
		text, err := read()
		done <- input{text, err}
	}()
	select {
	case got := <-done:
		return got.text, got.err
	case <-ctx.Done():
		return nil, ctx.Err() // the caller says what was read
	}
}
