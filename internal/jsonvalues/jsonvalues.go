// Package jsonvalues tells how many values a JSON text has before it is decoded: one of two bytes may take 200 in memory. It also
// takes an object apart without decoding it.
package jsonvalues

import (
	"bytes"
	"slices"
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

// Members returns the values of the members with these names of an object in valid JSON, as parts of text; nil for one that it does not
// have. encoding/json would scan each value twice more, and copy it.
func Members(text []byte, names ...string) [][]byte {
	values := make([][]byte, len(names))
	var name []byte             // the last string
	at, from, depth := -1, 0, 0 // at is that of the current name
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			begin := i + 1
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++ // whatever it is, it does not end the string
				}
			}
			name = text[begin:min(i, len(text))]
		case c == ':' && depth == 1:
			at, from = slices.Index(names, string(name)), i+1
		case depth == 1 && (c == ',' || c == '}'):
			if at >= 0 {
				values[at] = bytes.TrimSpace(text[from:i:i])
			}
			at = -1
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
	}
	return values
}
