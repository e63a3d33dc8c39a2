package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
)

// TestAMaximalListingFitsTheContainer has ElevenLabs list as much as is read at most, of small keys and of large ones, over
// and over, and compares with the memory that the chart allows.
func TestAMaximalListingFitsTheContainer(t *testing.T) {
	t.Parallel()
	values, err := os.ReadFile("../../deploy/helm/rekeyd/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	limit := regexp.MustCompile(`limits: \{memory: (\d+)Mi\}`).FindSubmatch(values)
	if limit == nil {
		t.Fatalf("the chart has no limit of memory:\n%s", values)
	}
	most, err := strconv.Atoi(string(limit[1]))
	if err != nil {
		t.Fatal(err)
	}
	const head, tail = `{"service-accounts":[{"service_account_user_id":"` + account + `","api-keys":[`, `]}]}`
	key := func(i int, name string) string { return fmt.Sprintf(`{"key_id":"%d","name":"%s"},`, i, name) }
	list := func(n, length int) string {
		var b strings.Builder
		b.WriteString(head)
		name := strings.Repeat("x", length)
		for i := range n {
			b.WriteString(key(i, name))
		}
		return strings.TrimSuffix(b.String(), ",") + tail
	}
	for name, listing := range map[string]string{"small keys": list(130_000, 90), "large keys": list(160, 100_000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			served := make(chan struct{}, 1)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/service-accounts" {
					http.NotFound(w, r)
					return
				}
				_, _ = w.Write([]byte(listing))
				select {
				case served <- struct{}{}:
				default:
				}
			}))
			t.Cleanup(s.Close)
			w := newWorld(t, common.vault)
			w.policy("@every 1h")
			d := w.start(map[string]string{"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": "", "ELEVENLABS_BASE_URL": s.URL, "REKEYD_LOG_LEVEL": "info"})
			for range 6 {
				<-served
			}
			process.Eventually(t, process.Patience, func() error {
				if status, body := d.get("/healthz"); status != http.StatusOK {
					return fmt.Errorf("HTTP %d %s", status, body)
				}
				return nil
			})
			t.Logf("%d MiB of listing: %d MiB resident at most, the chart allows %d", len(listing)>>20, d.memory(), most)
			if got := d.memory(); got > most*9/10 {
				t.Errorf("listings of %d MiB take %d MiB of the %d that the chart allows", len(listing)>>20, got, most)
			}
			if status := d.Stop(); status != 0 {
				t.Errorf("exit status %d: %s", status, d.Stderr.String())
			}
		})
	}
}
