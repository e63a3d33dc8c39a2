// Package reader gives a program the API key that rekeyd publishes in a record of Vault or OpenBao (KV version 2), and keeps it
// current. It needs nothing but the standard library.
//
//	keys, err := reader.New(reader.Options{
//		Address: "https://vault.example.com:8200",
//		Token:   func(context.Context) (string, error) { return client.Token(), nil }, // of Vault's own client, say
//		Path:    "elevenlabs/tts-prod",
//	})
//	client := &http.Client{Transport: keys.Transport("https://api.elevenlabs.io", nil)}
//
// The client sends the key with each request, and after a 401 invalid_api_key reads the record again and repeats the request
// once. A program that connects in another way, such as a WebSocket, calls [Reader.Key] before it connects and [Reader.Reread]
// after a refusal; one that holds connections open loops over [Reader.Watch] and replaces them before
// [Key.PreviousValidUntil].
//
// # How old a key may be
//
// A program that calls [Reader.Key] or sends requests has a key that is at most Options.Refresh old, 5 minutes unless it says
// otherwise, while Vault answers. Reads come up to a fifth of that sooner, at random, so that many programs do not read at once.
// While Vault does not answer, the key at hand stays in use and Vault is asked again after pauses that grow from one to 30
// seconds. The policy's overlap should be at least twice Refresh.
//
// # Waiting
//
// A read takes at most Options.Timeout, however many callers wait for it, and goes on when the context of one ends. Key waits for
// a read only where it has no key, or where the key has not been due for a read within the last Refresh, as in a program that was
// idle. Reread reads at most once a second while the record holds a key that is refused.
//
// # Errors
//
// [ErrNoKey] means that the record or its field is missing, [ErrDenied] that Vault refused the token; test for them with
// errors.Is. Everything else is a fault of the network, of Vault or of Options.Token, and passes when that does. No error holds the
// key or the token, and no verb of fmt, encoder or logger prints the key: only [Key.Reveal] returns it.
//
// All methods may be called concurrently.
package reader
