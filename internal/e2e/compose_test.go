//go:build prometheus

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// service is what compose.yaml says of one; an unknown field fails, so that nothing is left out unseen.
type service struct {
	Image, Restart string
	Build          struct{ Context, Target string }
	Entrypoint     []string
	Command        []string
	Environment    map[string]string
	Volumes, Ports []string
	ReadOnly       bool                                  `yaml:"read_only"`
	CapDrop        []string                              `yaml:"cap_drop"`
	CapAdd         []string                              `yaml:"cap_add"`
	SecurityOpt    []string                              `yaml:"security_opt"`
	StopGrace      string                                `yaml:"stop_grace_period"`
	DependsOn      map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck    struct {
		Test     []string
		Interval string
		Retries  int
	}
}

// compose runs services of compose.yaml as processes. What is in place of Docker: a service's name and port is a free
// port of loopback, a mounted file or folder is where it is mounted from, and the images' own entry points are here.
type compose struct {
	t        *testing.T
	services map[string]service
	hosts    *strings.Replacer
	bin      string // has vault, as the image does
}

func readCompose(t *testing.T) compose {
	t.Helper()
	text, err := os.ReadFile("../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Name     string
		Services map[string]service
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	c := compose{t: t, services: file.Services, bin: t.TempDir()}
	vault, sim := freeAddress(t), freeAddress(t)
	c.hosts = strings.NewReplacer("0.0.0.0:8642", sim, "elevensim:8642", sim, "vault:8200", vault, "127.0.0.1:8200", vault, "rekeyd:9466", freeAddress(t))
	if err := os.Symlink(vaulttest.Binary(t), filepath.Join(c.bin, "vault")); err != nil {
		t.Fatal(err)
	}
	return c
}

// mounted replaces paths in a service by those that are mounted there.
func (c compose) mounted(name, text string) string {
	c.t.Helper()
	var pairs []string
	for _, v := range c.services[name].Volumes {
		parts := strings.Split(v, ":")
		source, err := filepath.Abs(filepath.Join("../../deploy", parts[0]))
		if _, missing := os.Stat(source); errors.Join(err, missing) != nil {
			c.t.Fatalf("%s mounts %s, which is not there", name, parts[0])
		}
		pairs = append(pairs, parts[1], source)
	}
	return c.hosts.Replace(strings.NewReplacer(pairs...).Replace(text))
}

// environment is a service's, with more where the image or Docker gives it.
func (c compose) environment(name string, more ...string) []string {
	for variable, value := range c.services[name].Environment {
		more = append(more, variable+"="+c.mounted(name, value))
	}
	return more
}

// start starts a service by the program that its image runs, with the arguments that the image gives it before its command.
func (c compose) start(name, program string, environment []string, arguments ...string) *process.Process {
	c.t.Helper()
	for _, a := range c.services[name].Command {
		arguments = append(arguments, c.mounted(name, a))
	}
	return process.Start(c.t, c.environment(name, environment...), program, arguments...)
}

// TestPrometheusInCompose starts rekeyd, simulator, Vault and Prometheus as compose.yaml has them and sees a rotation, the
// target and the alerts. Grafana is not installed here: its provisioning is read.
func TestPrometheusInCompose(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	home := "HOME=" + t.TempDir()
	path := "PATH=" + c.bin + ":" + os.Getenv("PATH")
	c.start("elevensim", common.Simulator, nil)
	c.start("vault", filepath.Join(c.bin, "vault"), []string{home, "VAULT_DEV_LISTEN_ADDRESS=" + c.hosts.Replace("vault:8200")}, "server", "-dev", "-dev-no-store-token")
	check := c.services["vault"].Healthcheck.Test
	process.Eventually(t, prometheusPatience, func() error {
		cmd := exec.CommandContext(t.Context(), filepath.Join(c.bin, check[1]), check[2:]...)
		cmd.Env = c.environment("vault", home)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w: %s", check, err, out)
		}
		return nil
	})
	setup := c.services["vault-setup"].Entrypoint
	if p := c.start("vault-setup", setup[0], []string{home, path}, setup[1:]...); p.Wait() != 0 {
		t.Fatalf("vault-setup: %s%s", p.Stdout.String(), p.Stderr.String())
	}
	address := c.hosts.Replace("rekeyd:9466")
	listen := []string{"REKEYD_LISTEN_ADDR=" + address}
	d := c.start("rekeyd", common.Rekeyd, listen, "run")
	d.Find(&d.Stderr, `"msg":"(started)"`)
	p := c.prometheus()
	for range 2 { // the policy's own schedule is for people who look: a key every three minutes
		command := process.Start(t, c.environment("rekeyd", listen...), common.Rekeyd, "rotate", "tts-demo")
		if command.Wait() != 0 {
			t.Fatalf("rotating: %s", command.Stderr.String())
		}
	}
	p.until(`up{job="rekeyd"}`, "1")
	p.until(`rekeyd_keys{policy="tts-demo",state="current"}`, "1")
	p.until(`rekeyd_rotations_total{policy="tts-demo",result="failure"}`, "0")
	p.until(`min by (policy) (rekeyd_keys{policy="tts-demo",state="overlap"}) >= bool 1`, "1")
	var rules struct{ Groups []struct{ Rules []any } }
	if err := p.get("/api/v1/rules", &rules); err != nil || len(rules.Groups) == 0 {
		t.Errorf("Prometheus has no alerts: %v", err)
	}
	health := process.Start(t, c.environment("rekeyd", listen...), common.Rekeyd, "health")
	if health.Wait() != 0 {
		t.Errorf("the image's health check: %s", health.Stderr.String())
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("rekeyd's exit status is %d: %s", status, d.Stderr.String())
	}
}

// prometheus is started with a copy of its folder in which rekeyd's host name is replaced.
func (c compose) prometheus() prometheusServer {
	c.t.Helper()
	config := c.mounted("prometheus", "/etc/prometheus")
	dir := c.t.TempDir()
	for _, name := range []string{"prometheus.yml", "alerts.yaml"} {
		text, err := os.ReadFile(filepath.Join(config, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(c.hosts.Replace(string(text))), 0o600)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		c.t.Fatal("prometheus is not installed; this test needs Debian's package of that name")
	}
	address := freeAddress(c.t)
	c.start("prometheus", binary, nil, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	return prometheusServer{c.t, "http://" + address}
}

// TestPrometheusIsWhereGrafanaLooks holds what Grafana is given together: it cannot be started here.
func TestPrometheusIsWhereGrafanaLooks(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	var sources struct{ Datasources []struct{ Type, URL string } }
	var boards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	for path, into := range map[string]any{"/etc/grafana/provisioning/datasources/rekeyd.yaml": &sources, "/etc/grafana/provisioning/dashboards/rekeyd.yaml": &boards} {
		text, err := os.ReadFile(c.mounted("grafana", path))
		if err == nil {
			err = yaml.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(sources.Datasources) != 1 || sources.Datasources[0].URL != "http://prometheus:9090" || sources.Datasources[0].Type != "prometheus" {
		t.Errorf("Grafana's sources are %v", sources)
	}
	if len(boards.Providers) != 1 || !strings.HasSuffix(c.mounted("grafana", boards.Providers[0].Options.Path+"/rekeyd.json"), "deploy/grafana/rekeyd.json") {
		t.Errorf("Grafana looks for dashboards in %v, and the dashboard is mounted elsewhere", boards)
	}
}
