package charttest

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
)

var update = flag.Bool("update", false, "write what is generated: the chart's copies, the golden file, the plain manifests")

const (
	minimal = "../../deploy/kubernetes/values.yaml"
	full    = "testdata/full.yaml"
)

// TestGenerated holds what make manifests writes to what it is made from.
func TestGenerated(t *testing.T) {
	alerts, dashboard := read(t, "../../deploy/prometheus/alerts.yaml"), read(t, "../../deploy/grafana/rekeyd.json")
	same(t, chart+"/files/alerts.yaml", alerts)
	same(t, chart+"/files/rekeyd.json", dashboard)

	rendered := Render(t, "-f", full)
	for _, copied := range []struct{ text, indent string }{{alerts, "  "}, {dashboard, "    "}} {
		block := regexp.MustCompile(`(?m)^`).ReplaceAllString(strings.TrimSpace(copied.text), copied.indent)
		if strings.Count(rendered, block) != 1 {
			t.Errorf("the chart does not have this as it is:\n%.200s", block)
		}
		rendered = strings.Replace(rendered, block, copied.indent+"...", 1)
	}
	same(t, "testdata/full.golden.yaml", rendered)
	same(t, "../../deploy/kubernetes/rekeyd.yaml", plain(Render(t, "-f", minimal)))
}

// plain leaves out what speaks of Helm.
func plain(rendered string) string {
	rendered = regexp.MustCompile(`(?m)^(# Source: .*| +helm\.sh/chart: .*| +app\.kubernetes\.io/managed-by: .*)\n`).ReplaceAllString(rendered, "")
	rendered = strings.ReplaceAll(rendered, "\n\n---", "\n---")
	return "# Made from the chart in deploy/helm with values.yaml by make manifests.\n" + rendered
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func same(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, file); got != want {
		t.Errorf("%s is not what it is made from; read what make manifests changes. It should be:\n%s", file, want)
	}
}

// TestLintAndNotes has helm look at the chart, and install it as far as that goes without a cluster.
func TestLintAndNotes(t *testing.T) {
	for values, notes := range map[string][]string{
		minimal: {"kubectl -n rekeyd exec deployment/rekeyd -- /rekeyd check --online", "as the role rekeyd", "rekeyd/rekeyd for the audience vault"},
		full:    {"to https://vault.example.com as the role rotator", "rekeyd/rotator for the audience https://vault.example.com", "ConfigMap rekeyd-policies"},
	} {
		if out, err := Helm(t, "lint", "--strict", chart, "-f", values); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		out, err := Helm(t, "install", "rekeyd", chart, "-n", "rekeyd", "-f", values, "--dry-run=client")
		if err != nil {
			t.Error(err)
		}
		_, said, _ := strings.Cut(out, "\nNOTES:\n")
		for _, note := range notes {
			if !strings.Contains(said, note) {
				t.Errorf("with %s the notes do not say %q:\n%s", values, note, said)
			}
		}
	}
}

// TestTypes has every object decoded strictly into the type that Kubernetes and the Prometheus Operator have for it.
func TestTypes(t *testing.T) {
	always := "networking.k8s.io/v1 NetworkPolicy rekeyd\npolicy/v1 PodDisruptionBudget rekeyd\nv1 ServiceAccount %s\nv1 ConfigMap rekeyd-policies\n"
	for values, want := range map[string]string{
		minimal: fmt.Sprintf(always, "rekeyd") + "v1 Service rekeyd\napps/v1 Deployment rekeyd\n",
		full: fmt.Sprintf(always, "rotator") + "v1 ConfigMap rekeyd-dashboard\nv1 Service rekeyd\napps/v1 Deployment rekeyd\n" +
			"monitoring.coreos.com/v1 PrometheusRule rekeyd\nmonitoring.coreos.com/v1 ServiceMonitor rekeyd\n",
	} {
		if got, err := Decode(t, Render(t, "-f", values)); err != nil || got != want {
			t.Errorf("%s renders\n%sand not\n%s%v", values, got, want, err)
		}
	}
	wrong := strings.NewReplacer("runAsNonRoot:", "runAsNonroot:", "maxUnavailable: 1\n", "maxUnavailable: 1\n  maxUnavailable: 2\n").Replace(Render(t, "-f", minimal))
	_, err := Decode(t, wrong)
	for _, fault := range []string{`unknown field "spec.template.spec.securityContext.runAsNonroot"`, `key "maxUnavailable" already set`} {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("the decoder does not find this: %s\n%v", fault, err)
		}
	}
}

// TestWrongValues is what helm says to mistakes, with the place of each.
func TestWrongValues(t *testing.T) {
	for set, want := range map[string]string{
		"vault.address=vault:8200":         "at '/vault/address': 'vault:8200' does not match pattern '^https?://",
		"vault.adress=https://vault":       "at '/vault': additional properties 'adress' not allowed",
		"vault.auth=userpass":              "at '/vault/auth': value must be one of 'kubernetes', 'jwt', 'approle', 'token'",
		"vault.caConfigMap.name=ca":        "at '/vault/caConfigMap': properties 'key' required, if 'name' exists",
		"policiesConfigMap=mine":           "set either policies (--set-file policies=policies.yaml) or policiesConfigMap",
		"secrets.VAULT_TOKEN=hvs.secret":   "at '/secrets/VAULT_TOKEN': got string, want object",
		"secrets.VAULT_TOKEN.name=rekeyd":  "at '/secrets/VAULT_TOKEN': missing property 'key'",
		"secrets.REKEYD_LOG_LEVEL.name=x":  "at '/secrets': additional properties 'REKEYD_LOG_LEVEL' not allowed",
		"env.REKEYD_LOGLEVEL=debug":        "at '/env': additional properties 'REKEYD_LOGLEVEL' not allowed",
		"env.REKEYD_ADMIN_TOKEN=in-values": "at '/env': additional properties 'REKEYD_ADMIN_TOKEN' not allowed",
		"env.REKEYD_CONCURRENCY=16":        "at '/env/REKEYD_CONCURRENCY': got number, want string",
		"replicas=two":                     "at '/replicas': got string, want integer",
		"antiAffinity=soft":                "at '/antiAffinity': value must be one of 'preferred', 'required'",
		"image.digest=latest":              "at '/image/digest': 'latest' does not match pattern",
	} {
		if _, err := Helm(t, "template", "rekeyd", chart, "-f", minimal, "--set", set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("to %s helm says %v, not %q", set, err, want)
		}
	}
	if _, err := Helm(t, "template", "rekeyd", chart); err == nil || !strings.Contains(err.Error(), "at '/vault': missing property 'address'") {
		t.Errorf("without values helm says %v", err)
	}
	if _, err := Helm(t, "template", "rekeyd", chart, "--set", "vault.address=https://vault"); err == nil || !strings.Contains(err.Error(), "set either policies") {
		t.Errorf("without policies helm says %v", err)
	}
}

// TestThePage renders with each piece of values in docs/kubernetes.md, and has rekeyd read its policies.
func TestThePage(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(read(t, "../../docs/kubernetes.md"), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d pieces", len(blocks))
	}
	for _, block := range blocks {
		file, text := filepath.Join(t.TempDir(), "values.yaml"), block[1]
		if strings.HasPrefix(text, "policies:") {
			text = "policies: |\n  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
		}
		write(t, file, text)
		rendered := Render(t, "-f", minimal, "-f", file)
		if _, err := Decode(t, rendered); err != nil {
			t.Errorf("%s%v", block[1], err)
		}
		accepted(t, rendered)
	}
}

// TestRekeydAcceptsWhatIsRendered reads environment and policies as the daemon does, with the files that its pod has.
func TestRekeydAcceptsWhatIsRendered(t *testing.T) {
	approle := []string{"--set", "vault.auth=approle,env.REKEYD_VAULT_ROLE_ID=role,secrets.REKEYD_VAULT_SECRET_ID.name=vault,secrets.REKEYD_VAULT_SECRET_ID.key=id"}
	for name, args := range map[string][]string{
		"minimal": {"-f", minimal},
		"full":    {"-f", full},
		"approle": append(approle, "-f", minimal),
		"token":   {"-f", minimal, "--set", "vault.auth=token,secrets.VAULT_TOKEN.name=vault,secrets.VAULT_TOKEN.key=id"},
	} {
		t.Run(name, func(t *testing.T) {
			accepted(t, Render(t, args...))
		})
	}
}

func accepted(t *testing.T, manifests string) {
	t.Helper()
	objects := Objects(t, manifests)
	pod, _ := PodOf(t, objects)
	variables := pod.Start(t, t.TempDir(), rendered(t, objects))
	var names []string
	for v := range variables {
		names = append(names, v+"=")
	}
	env, err := config.LoadEnv(envconfig.MapLookuper(variables))
	if faults := append(config.UnknownVariables(names), env.Warnings()...); err != nil || len(faults) > 0 {
		t.Fatalf("%v %v", err, faults)
	}
	policies, err := config.LoadPolicies(t.Context(), env.Source(), env, envconfig.MapLookuper(variables))
	if err != nil || len(policies.Warnings) > 0 {
		t.Errorf("%v %v", err, policies)
	}
	if grace := pod.TerminationGracePeriodSeconds; float64(grace) < env.ShutdownTimeout.Seconds()+7 {
		t.Errorf("Kubernetes waits %d s, and rekeyd may take %s, 5 s for events and a second for requests", grace, env.ShutdownTimeout)
	}
}

// rendered has the ConfigMaps among the objects, and made-up ones beside them.
func rendered(t *testing.T, objects []Object) Contents {
	t.Helper()
	return Contents{
		ConfigMap: func(name string) map[string]string {
			for _, o := range objects {
				var c struct{ Data map[string]string }
				if o.Kind == "ConfigMap" && o.Metadata.Name == name && json.Unmarshal(o.JSON, &c) == nil {
					return c.Data
				}
			}
			return map[string]string{"root.pem": "an authority"}
		},
		Secret: func(string) map[string]string {
			secret := "a-secret-of-a-test"
			return map[string]string{"elevenlabs-api-key": secret, "admin-token": secret, "admin": secret, "admin-key": secret, "hmac": secret, "id": secret, "web.yaml": "{}"}
		},
		Token: func(string) string { return "a-token-of-a-test" },
	}
}

// owned are the variables that the chart sets itself, or that make no sense in it.
const owned = "REKEYD_POLICY_FILE REKEYD_POLICIES REKEYD_SINK REKEYD_FILE_DIR REKEYD_LISTEN_ADDR REKEYD_WEB_CONFIG_FILE REKEYD_SHUTDOWN_TIMEOUT " +
	"REKEYD_VAULT_AUTH REKEYD_VAULT_AUTH_MOUNT REKEYD_VAULT_ROLE REKEYD_VAULT_JWT_FILE REKEYD_VAULT_TOKEN_FILE " +
	"VAULT_ADDR VAULT_NAMESPACE VAULT_CACERT VAULT_CAPATH VAULT_CLIENT_CERT VAULT_CLIENT_KEY"

// TestSchemaKnowsEveryVariable finds a variable of rekeyd that cannot be set through the chart.
func TestSchemaKnowsEveryVariable(t *testing.T) {
	var schema struct {
		Properties map[string]struct{ PatternProperties map[string]any }
	}
	if err := json.Unmarshal([]byte(read(t, chart+"/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	accepts := func(value, name string) bool {
		for pattern := range schema.Properties[value].PatternProperties {
			return regexp.MustCompile(pattern).MatchString(name)
		}
		return false
	}
	page := read(t, "../../docs/environment.md") // made from config, which checks it
	rows := regexp.MustCompile("(?m)^\\| `([A-Z_]+)`(, `[A-Z_]+_FILE`)?").FindAllStringSubmatch(page, -1)
	if len(rows) < 40 {
		t.Fatalf("only %d variables in\n%s", len(rows), page)
	}
	for _, row := range rows {
		name, secret := row[1], row[2] != ""
		if got := accepts("secrets", name); got != secret && name != "ELEVENLABS_BASE_URL" {
			t.Errorf("%s can be among secrets: %t", name, got)
		}
		if want := !secret && !slices.Contains(strings.Fields(owned), name); accepts("env", name) != want {
			t.Errorf("%s can be in env: %t", name, !want)
		}
	}
}

// TestSchemaIsClosedAndDescribed walks through the schema.
func TestSchemaIsClosedAndDescribed(t *testing.T) {
	var walk func(place string, schema map[string]any)
	walk = func(place string, schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		patterns, _ := schema["patternProperties"].(map[string]any)
		if properties != nil && schema["additionalProperties"] != false {
			t.Errorf("%s accepts what it does not know", place)
		}
		all := maps.Clone(properties)
		if all == nil {
			all = map[string]any{}
		}
		maps.Copy(all, patterns)
		for name, value := range all {
			inner, ok := value.(map[string]any)
			if text, _ := inner["description"].(string); !ok || text == "" {
				t.Errorf("%s/%s is not described", place, name)
			}
			walk(place+"/"+name, inner)
		}
	}
	var schema map[string]any
	if err := json.Unmarshal([]byte(read(t, chart+"/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	walk("", schema)
}

// TestVersions holds the chart to the release that it belongs to.
func TestVersions(t *testing.T) {
	out, err := Helm(t, "show", "chart", chart)
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^version: (\S+)$`).FindStringSubmatch(out)
	app := regexp.MustCompile(`(?m)^appVersion: "?([^"\s]+)"?$`).FindStringSubmatch(out)
	if version == nil || app == nil || version[1] != app[1] {
		t.Errorf("version %q and appVersion %q differ", version, app)
	}
}

// TestTheReadmeInstalls: the README's line, with the two files of docs/kubernetes.md, lacks nothing that the chart requires.
func TestTheReadmeInstalls(t *testing.T) {
	line := regexp.MustCompile(`(?m)^helm install rekeyd oci://\S+ --version \S+(.*)$`).FindStringSubmatch(read(t, "../../README.md"))
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(read(t, "../../docs/kubernetes.md"), 2)
	if line == nil || len(blocks) != 2 {
		t.Fatalf("%q, %q", line, blocks)
	}
	dir := t.TempDir()
	for i, name := range []string{"values.yaml", "policies.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(blocks[i][1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	Render(t, strings.Fields(regexp.MustCompile(`\w+\.yaml`).ReplaceAllString(line[1], dir+"/$0"))...)
}
