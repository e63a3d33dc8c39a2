package simulation_test

import (
	"math/rand/v2"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// ElevenLabs is not as FIDELITY.md assumes in one seed of so many: listings show the use and the state of a key late, a disabled key
// works on, and a key that does not work is refused with a 401 of another code.
const (
	deviantSeeds     = 16
	deviantRemainder = 13
)

func (w *world) deviant() bool { return w.seed%deviantSeeds == deviantRemainder }

func (w *world) deviate(f *elevensim.Faults) {
	if !w.deviant() {
		return
	}
	r := rand.New(rand.NewPCG(w.seed, 19))
	f.ChangeLag = elevensim.Duration(r.Int64N(int64(40 * time.Second)))
	f.DisableLag = elevensim.Duration(r.Int64N(int64(3 * time.Hour)))
	f.Codes = map[string]string{"invalid_api_key": "key_is_not_valid"}
	f.KeyDelayCode = "key_is_not_ready"
	w.hits["start × wrong assumptions"]++
}
