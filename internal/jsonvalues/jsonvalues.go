// Package jsonvalues tells how many values a JSON text has before it is decoded: one of two bytes may take 200 in memory. It also
// takes an object apart without decoding it.
package jsonvalues

import (
	"bytes"
	"iter"
)

// Exceed reports whether text has more than most values, by the commas between them. Those in strings do not count.
func Exceed(text []byte, most int) bool {
	if bytes.Count(text, []byte(",")) <= most {
		return false
	}
	n, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inString = !inString
		case c == '\\' && inString:
			i++ // whatever it is, it does not end the string
		case c == ',' && !inString:
			n++
		}
	}
	return n > most
}

// Members iterates over the names, as they are written, and values of an object in valid JSON; both are parts of text. What is not an
// object has none. encoding/json would scan each value twice more, and copy it.
func Members(text []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		var name []byte // nil in an array
		from, depth := 0, 0
		for i := 0; i < len(text); i++ {
			switch c := text[i]; {
			case c == '"':
				for i++; i < len(text) && text[i] != '"'; i++ {
					if text[i] == '\\' {
						i++ // whatever it is, it does not end the string
					}
				}
			case c == ':' && depth == 1:
				name, from = bytes.TrimSpace(text[from:i]), i+1
			case depth == 1 && (c == ',' || c == '}'):
				if name != nil && !yield(name, bytes.TrimSpace(text[from:i:i])) {
					return
				}
				from = i + 1
			case c == '{' || c == '[':
				if depth++; depth == 1 {
					from = i + 1
				}
			case c == '}' || c == ']':
				depth--
			}
		}
	}
}
