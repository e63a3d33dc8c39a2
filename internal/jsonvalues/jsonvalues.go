// Package jsonvalues tells how many values a JSON text has before it is decoded: one of two bytes may take 200 in memory.
package jsonvalues

import "bytes"

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
