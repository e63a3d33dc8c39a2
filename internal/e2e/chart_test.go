package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/charttest"
	"github.com/rekeyd/rekeyd/internal/kubetest"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestKubernetesChart follows docs/kubernetes.md with the real kubectl, helm and vault against a real API server, which has
// to accept the Deployment's pod, and then runs what that pod would run: with its variables, its volumes and a token of its
// service account, as the API server has them. Like TestKubernetesLogin it is for make test-kubernetes.
func TestKubernetesChart(t *testing.T) {
	if os.Getenv("REKEYD_KUBERNETES") == "" {
		t.Log("set REKEYD_KUBERNETES=1 to run it; make test-kubernetes does")
		return
	}
	c := newChartWorld(t)
	c.put("admin.key", c.w.adminKey+"\n")
	c.follow("create namespace")
	c.follow("create serviceaccount")
	c.put("values.yaml", strings.Replace(example(t, "kubernetes.md", "vault:\n"), "https://vault.example.com:8200", c.w.vault.Addr, 1)+
		"env: {ELEVENLABS_BASE_URL: '"+c.w.sim.URL+"', REKEYD_MIN_INTERVAL: 1s, REKEYD_RECONCILE_INTERVAL: 300ms, REKEYD_API_RATE: '1000'}\n")
	c.w.policy("@every 1h")
	c.put("policies.yaml", c.policies())
	c.follow("helm upgrade")
	deployment := c.deployment()
	pod, template := charttest.PodOf(t, []charttest.Object{deployment})
	c.admits(template)

	root := t.TempDir()
	env := []string{"REKEYD_LISTEN_ADDR=127.0.0.1:0", "HOME=" + root}
	for name, value := range pod.Start(t, root, c.contents(pod)) {
		env = append(env, name+"="+value)
	}
	d := c.w.run(env)
	c.w.settled("")

	_, another, _ := strings.Cut(example(t, "kubernetes.md", "policies:\n"), "policies:\n")
	c.put("policies.yaml", c.policies()+strings.NewReplacer("svcacc_9f8b7c6d5e4a3b2c1d0e", account, "tts-prod", "another").Replace(another))
	c.follow("rekeyd check")
	c.follow("helm upgrade")
	if after := c.deployment(); after.Metadata.Generation != deployment.Metadata.Generation {
		t.Errorf("another policy changes the Deployment to its generation %d: the pods would start anew", after.Metadata.Generation)
	}
	pod.Start(t, root, c.contents(pod)) // as the kubelet brings a ConfigMap up to date
	published := func() error {
		if record, _ := c.w.document("elevenlabs/another"); record["api_key"] == nil {
			return fmt.Errorf("the new policy has no key; it said:\n%s", d.Stderr.String())
		}
		return nil
	}
	process.Eventually(t, process.Patience, published)
	d.end()

	c.follow("helm uninstall")
	if status, body := c.cluster.Try(http.MethodGet, deployments+"/rekeyd", nil); status != http.StatusNotFound {
		t.Errorf("after the chart was uninstalled its Deployment is there: HTTP %d: %s", status, body)
	}
	if err := published(); err != nil {
		t.Errorf("uninstalling took a record: %v", err)
	}
	c.follow("kubectl apply")
	_, template = charttest.PodOf(t, []charttest.Object{c.deployment()})
	c.admits(template)
}

const deployments = "/apis/apps/v1/namespaces/rekeyd/deployments"

// chartWorld is a cluster, a Vault, and a person's folder with the repository's deploy in it.
type chartWorld struct {
	t       *testing.T
	w       *world
	cluster *kubetest.Cluster
	dir     string
	env     []string
}

func newChartWorld(t *testing.T) chartWorld {
	t.Helper()
	cluster := kubetest.Start(t)
	vault := vaulttest.StartWithPlugins(t, pluginFolder(t))
	dir := t.TempDir()
	deploy, err := filepath.Abs("../../deploy")
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{
		"deploy": deploy, "rekeyd": common.Rekeyd, "vault": vaulttest.Binary(t), "helm": charttest.Binary(t),
		"kubectl": kubetest.Build(t, "kubectl", "kubectl once: about 2 minutes"),
	} {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return chartWorld{t, newWorld(t, vault), cluster, dir, []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir,
		"KUBECONFIG=" + cluster.Kubeconfig(), "VAULT_ADDR=" + vault.Addr, "VAULT_TOKEN=" + vault.RootToken}}
}

func (c chartWorld) put(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// policies are those of the world.
func (c chartWorld) policies() string {
	c.t.Helper()
	text, err := os.ReadFile(c.w.policyFile)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// follow runs the page's commands that have some words in them.
func (c chartWorld) follow(words string) {
	c.t.Helper()
	page, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(block[1], words) {
			continue
		}
		cmd := exec.CommandContext(c.t.Context(), "sh", "-euc", block[1])
		cmd.Dir, cmd.Env = c.dir, c.env
		if out, err := cmd.CombinedOutput(); err != nil {
			c.t.Fatalf("%s%v\n%s", block[1], err, out)
		}
		return
	}
	c.t.Fatalf("docs/kubernetes.md has no commands with %q", words)
}

// get asks the API server.
func (c chartWorld) get(path string, into any) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.cluster.Do(http.MethodGet, path, nil)), into); err != nil {
		c.t.Fatal(err)
	}
}

func (c chartWorld) deployment() charttest.Object {
	c.t.Helper()
	var o charttest.Object
	c.get(deployments+"/rekeyd", &o.JSON)
	if err := json.Unmarshal(o.JSON, &o); err != nil {
		c.t.Fatal(err)
	}
	return o
}

// admits makes the pod as the Deployment's controller would, and then weaker ones.
func (c chartWorld) admits(template map[string]any) {
	c.t.Helper()
	template["metadata"].(map[string]any)["generateName"] = "rekeyd-"
	pod, err := json.Marshal(template)
	if err != nil {
		c.t.Fatal(err)
	}
	const pods = "/api/v1/namespaces/rekeyd/pods?fieldValidation=Strict"
	c.cluster.Do(http.MethodPost, pods, json.RawMessage(pod))
	for _, weaker := range [][2]string{
		{`"runAsNonRoot":true`, `"runAsNonRoot":false`},
		{`"allowPrivilegeEscalation":false`, `"allowPrivilegeEscalation":true`},
		{`"drop":["ALL"]`, `"drop":["NET_RAW"]`},
		{`"seccompProfile":{"type":"RuntimeDefault"}`, `"seccompProfile":{"type":"Unconfined"}`},
		{`"enableServiceLinks":false`, `"hostPID":true`},
	} {
		weak := strings.Replace(string(pod), weaker[0], weaker[1], 1)
		status, body := c.cluster.Try(http.MethodPost, pods, json.RawMessage(weak))
		if status != http.StatusForbidden || !strings.Contains(body, `violates PodSecurity \"restricted:latest\"`) {
			c.t.Errorf("to a pod with %s the API server says HTTP %d: %s", weaker[1], status, body)
		}
	}
}

// contents are what the API server has for the pod's volumes.
func (c chartWorld) contents(pod charttest.Pod) charttest.Contents {
	return charttest.Contents{
		ConfigMap: func(name string) map[string]string {
			var answer struct{ Data map[string]string }
			c.get("/api/v1/namespaces/rekeyd/configmaps/"+name, &answer)
			return answer.Data
		},
		Secret: func(name string) map[string]string {
			var answer struct{ Data map[string][]byte } // in base64
			c.get("/api/v1/namespaces/rekeyd/secrets/"+name, &answer)
			texts := map[string]string{}
			for key, text := range answer.Data {
				texts[key] = string(text)
			}
			return texts
		},
		Token: func(audience string) string { return c.cluster.Token("rekeyd", pod.ServiceAccountName, audience) },
	}
}
