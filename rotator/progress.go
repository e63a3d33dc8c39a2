package rotator

import "context"

type progressKey struct{}

// WithProgress returns a context in which a command's reading of many documents tells how far it is, before each.
func WithProgress(ctx context.Context, tell func(done, of int)) context.Context {
	return context.WithValue(ctx, progressKey{}, tell)
}

// Progress tells, if ctx is from [WithProgress], that so many of the documents were read.
func Progress(ctx context.Context, done, of int) {
	if tell, ok := ctx.Value(progressKey{}).(func(done, of int)); ok {
		tell(done, of)
	}
}
