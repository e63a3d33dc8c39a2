package daemon

import (
	"io"
	"log/slog"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// cutter is the last line of defence: it cuts the process's secrets out of the log. It works on finished lines, so that no
// kind of attribute can bypass it.
type cutter struct {
	w        io.Writer
	redactor *secret.Redactor
}

// Write expects whole lines, as slog's handlers write them.
func (c cutter) Write(line []byte) (int, error) {
	if _, err := io.WriteString(c.w, c.redactor.Cut(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		least = slog.LevelInfo // config knows only levels that slog knows
	}
	o := &slog.HandlerOptions{Level: least}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
