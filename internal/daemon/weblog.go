package daemon

import (
	"context"
	"log/slog"
)

// webLog has the web toolkit's log lines without the words of its file: it logs what it cannot parse at each request.
type webLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (l webLog) Handle(ctx context.Context, r slog.Record) error {
	said := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "err" {
			said.AddAttrs(a)
		}
		return true
	})
	return l.Handler.Handle(ctx, said)
}
