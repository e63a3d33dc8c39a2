package sinks_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// readAnswer is Vault's answer to a read of a ledger entry, as it is after the second rotation.
const readAnswer = `{"request_id":"c9e2f0a4-5cf3-0e4e-b3a0-9a1d2f6f1c55","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":` + entry +
	`,"metadata":{"created_time":"2026-05-05T01:00:03.123456789Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":7}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}` + "\n"

const entry = `{"applied":{"at":"2026-05-05T01:00:02Z","digest":"0f343b0931126a20f133d67c2b018a3b0f343b0931126a20f133d67c2b018a3b"},` +
	`"current":{"account":"svcacc_000000000000042","created":"2026-05-05T01:00:00Z","hash":"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","id":"key_01jt7x8f9gq2k3m4n5p6r7s8t9","name":"rekeyd.abcdefgh.p-42.k3v7q2m9x4","published":"2026-05-05T01:00:01Z","rotation":"k3v7q2m9x4","sink":{"field":"api_key","mount":"secret","path":"elevenlabs/p-42"},"verified":true,"version":2,"workspace":"w42"},` +
	`"history":[{"key":"key_01jt6x8f9gq2k3m4n5p6r7s8t8","name":"rekeyd.abcdefgh.p-42.a3v7q2m9x4","published":"2026-04-28T01:00:01Z","reason":"first"},{"key":"key_01jt7x8f9gq2k3m4n5p6r7s8t9","name":"rekeyd.abcdefgh.p-42.k3v7q2m9x4","published":"2026-05-05T01:00:01Z","reason":"schedule"}],` +
	`"last_rotation":"2026-05-05T01:00:01Z","owner":"abcdefgh","policy":"p-42","quarantine":"24h0m0s","salt":"b1946ac92492d2347c6235b4d2611184","schema":2}`

// reads returns a read of an entry, without a network.
func reads(tb testing.TB) func() {
	tb.Helper()
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	v, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.token"), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {"Tue, 05 May 2026 01:00:05 GMT"}}, ContentLength: int64(len(readAnswer)), Body: io.NopCloser(strings.NewReader(readAnswer)), Request: r}, nil
	})})
	if err != nil {
		tb.Fatal(err)
	}
	return func() {
		if doc, err := v.Read(tb.Context(), ledger.Ref{Mount: "secret", Path: "rekeyd/policies/p-42"}, 0); err != nil || doc.Version != 7 || len(doc.JSON) != len(entry) {
			tb.Fatal(doc, err)
		}
	}
}

// Each entry is read at each resync, whether or not it changed.
func TestReadingADocumentAllocatesNoMoreThanItDid(t *testing.T) {
	const most = 55 // with a fifth more than was measured
	if got := testing.AllocsPerRun(100, reads(t)); got > most {
		t.Errorf("%.0f allocations, at most %d are expected", got, most)
	}
}

func BenchmarkRead(b *testing.B) {
	read := reads(b)
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
}
