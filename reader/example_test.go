package reader_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/reader"
)

// A client that follows rotations: its key is replaced while it works, and the old one stops working at once.
func Example() {
	vault, elevenlabs, rotate := running()
	rotate()

	keys, err := reader.New(reader.Options{
		Address: "https://vault.example.com:8200",
		Token:   func(context.Context) (string, error) { return "a token", nil }, // client.Token() of Vault's own client, or a file's
		Path:    "elevenlabs/tts-prod",
		Client:  &http.Client{Transport: vault}, // only here: both servers are in this process
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: keys.Transport("https://api.elevenlabs.io", elevenlabs)}
	for range 2 {
		resp, err := client.Get("https://api.elevenlabs.io/v1/models")
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = resp.Body.Close()
		key, err := keys.Key(context.Background())
		fmt.Println(resp.Status, key.ID, err)
		rotate()
	}

	// Output:
	// 200 OK key-1 <nil>
	// 200 OK key-2 <nil>
}

// A program that holds connections open replaces those of the previous key in time.
func ExampleReader_Watch() {
	vault, _, rotate := running()
	rotate()
	keys, err := reader.New(reader.Options{
		Address: "https://vault.example.com:8200", Path: "elevenlabs/tts-prod", Client: &http.Client{Transport: vault},
		Token: func(context.Context) (string, error) { return "a token", nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for key, err := range keys.Watch(context.Background()) {
		if err != nil {
			fmt.Println(err) // Vault is asked again
			continue
		}
		fmt.Println("connecting with", key.ID)
		if key.PreviousID != "" {
			fmt.Println("connections of", key.PreviousID, "are closed before", key.PreviousValidUntil)
			break
		}
		rotate()
		_, _ = keys.Read(context.Background()) // in place of five minutes
	}

	// Output:
	// connecting with key-1
	// connecting with key-2
	// connections of key-1 are closed before 2026-03-02 12:00:00 +0000 UTC
}

// running has a Vault and an ElevenLabs in this process; rotate publishes a new key and disables the one before it.
func running() (vault, elevenlabs http.RoundTripper, rotate func()) {
	kv, sim, n := memkv.New("a token", "secret"), newSimulator(), 0
	return kv, elevensim.Transport(sim), func() {
		n++
		id, previous := fmt.Sprint("key-", n), fmt.Sprint("key-", n-1)
		_, secret, err := sim.AddKey(account, elevensim.KeySpec{ID: id, Name: id})
		data := map[string]any{"api_key": secret, "key_id": id, "rotated_at": "2026-03-01T12:00:00Z"}
		if n > 1 {
			data["previous_key_id"], data["previous_valid_until"] = previous, "2026-03-02T12:00:00Z"
		}
		if err == nil {
			_, err = kv.Put("secret/elevenlabs/tts-prod", data)
		}
		if err == nil && n > 1 {
			err = sim.DisableKey(previous, "")
		}
		if err != nil {
			panic(err)
		}
	}
}
