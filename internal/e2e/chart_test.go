package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/charttest"
	"github.com/rekeyd/rekeyd/internal/kubetest"
	"github.com/rekeyd/rekeyd/internal/process"
)

// TestKubernetesChart applies the chart to a real API server, in a namespace that is held to the restricted Pod Security
// level, has it accept the Deployment's pod, and then runs what that pod would run: with its variables, its volumes and
// a token of its service account, as the API server has them. Like TestKubernetesLogin it is for make test-kubernetes.
func TestKubernetesChart(t *testing.T) {
	if os.Getenv("REKEYD_KUBERNETES") == "" {
		t.Log("set REKEYD_KUBERNETES=1 to run it; make test-kubernetes does")
		return
	}
	w, c := newChartWorld(t)
	objects := c.apply("")
	pod, template := charttest.PodOf(t, objects)
	c.admits(template)

	root := t.TempDir()
	env := []string{"REKEYD_LISTEN_ADDR=127.0.0.1:0", "HOME=" + root}
	for name, value := range pod.Start(t, root, c.contents(pod)) {
		env = append(env, name+"="+value)
	}
	d := w.run(env)
	w.settled("")

	before := c.generation()
	c.apply("  - {name: another, service_account: svcacc_prod, schedule: '@every 1h', permissions: [models_read], sink: {path: elevenlabs/another}}\n")
	if after := c.generation(); after != before {
		t.Errorf("another policy changes the Deployment, from generation %v to %v: its pods would start anew", before, after)
	}
	pod.Start(t, root, c.contents(pod)) // as the kubelet brings a ConfigMap up to date
	process.Eventually(t, process.Patience, func() error {
		if record, _ := w.document("elevenlabs/another"); record["api_key"] == nil {
			return fmt.Errorf("the new policy has no key; it said:\n%s", d.Stderr.String())
		}
		return nil
	})
	d.end()
}

// chartWorld is a cluster and a Vault that knows it.
type chartWorld struct {
	w       *world
	cluster *kubetest.Cluster
	values  map[string]any
}

func newChartWorld(t *testing.T) (*world, chartWorld) {
	t.Helper()
	cluster, vault, settings := clusterWithVault(t)
	setUp(t, vault, "kubernetes", settings...)
	cluster.Do(http.MethodPost, "/api/v1/namespaces", kubetest.Object{"metadata": kubetest.Object{
		"name": "rekeyd", "labels": kubetest.Object{"pod-security.kubernetes.io/enforce": "restricted"}}})
	w := newWorld(t, vault)
	w.policy("@every 1h")
	cluster.Do(http.MethodPost, "/api/v1/namespaces/rekeyd/secrets", kubetest.Object{
		"metadata": kubetest.Object{"name": "rekeyd"}, "stringData": kubetest.Object{"admin-key": w.adminKey + "\n"}})
	return w, chartWorld{w, cluster, map[string]any{
		"vault":   map[string]any{"address": vault.Addr},
		"secrets": map[string]any{"ELEVENLABS_API_KEY": map[string]any{"name": "rekeyd", "key": "admin-key"}},
		"env": map[string]any{"ELEVENLABS_BASE_URL": w.sim.URL, "REKEYD_MIN_INTERVAL": "1s", "REKEYD_RECONCILE_INTERVAL": "300ms",
			"REKEYD_RESYNC_INTERVAL": "2s", "REKEYD_API_RATE": "1000"},
	}}
}

// apply renders the chart, with further policies, and applies each object as kubectl apply --server-side does.
func (c chartWorld) apply(more string) []charttest.Object {
	t := c.w.t
	t.Helper()
	policies, err := os.ReadFile(c.w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.values["policies"] = string(policies) + more
	text, err := json.Marshal(c.values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	objects := charttest.Objects(t, charttest.Render(t, "-f", file))
	for _, o := range objects {
		c.cluster.Do(http.MethodPatch, o.Path()+"/"+o.Metadata.Name+"?fieldManager=test&fieldValidation=Strict", o.JSON)
	}
	return objects
}

// admits makes the pod as the Deployment's controller would, and then weaker ones.
func (c chartWorld) admits(template map[string]any) {
	t := c.w.t
	t.Helper()
	template["metadata"].(map[string]any)["generateName"] = "rekeyd-"
	pod, err := json.Marshal(template)
	if err != nil {
		t.Fatal(err)
	}
	const pods = "/api/v1/namespaces/rekeyd/pods?fieldValidation=Strict"
	c.cluster.Do(http.MethodPost, pods, json.RawMessage(pod))
	for _, weaker := range [][2]string{
		{`"runAsNonRoot":true`, `"runAsNonRoot":false`},
		{`"allowPrivilegeEscalation":false`, `"allowPrivilegeEscalation":true`},
		{`"drop":["ALL"]`, `"drop":["NET_RAW"]`},
		{`"seccompProfile":{"type":"RuntimeDefault"}`, `"seccompProfile":{"type":"Unconfined"}`},
		{`"enableServiceLinks":false`, `"hostNetwork":true`},
	} {
		weak := strings.Replace(string(pod), weaker[0], weaker[1], 1)
		status, body := c.cluster.Try(http.MethodPost, pods, json.RawMessage(weak))
		if status != http.StatusForbidden || !strings.Contains(body, `violates PodSecurity \"restricted:latest\"`) {
			t.Errorf("to a pod with %s the API server says HTTP %d: %s", weaker[1], status, body)
		}
	}
}

// contents are what the API server has for the pod's volumes.
func (c chartWorld) contents(pod charttest.Pod) charttest.Contents {
	get := func(path string, into any) {
		if err := json.Unmarshal([]byte(c.cluster.Do(http.MethodGet, "/api/v1/namespaces/rekeyd/"+path, nil)), into); err != nil {
			c.w.t.Fatal(err)
		}
	}
	return charttest.Contents{
		ConfigMap: func(name string) map[string]string {
			var answer struct{ Data map[string]string }
			get("configmaps/"+name, &answer)
			return answer.Data
		},
		Secret: func(name string) map[string]string {
			var answer struct{ Data map[string][]byte } // in base64
			get("secrets/"+name, &answer)
			texts := map[string]string{}
			for key, text := range answer.Data {
				texts[key] = string(text)
			}
			return texts
		},
		Token: func(audience string) string { return c.cluster.Token("rekeyd", pod.ServiceAccountName, audience) },
	}
}

// generation of the Deployment changes with its template.
func (c chartWorld) generation() float64 {
	var d struct{ Metadata struct{ Generation float64 } }
	if err := json.Unmarshal([]byte(c.cluster.Do(http.MethodGet, "/apis/apps/v1/namespaces/rekeyd/deployments/rekeyd", nil)), &d); err != nil {
		c.w.t.Fatal(err)
	}
	return d.Metadata.Generation
}
