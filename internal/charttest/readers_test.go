package charttest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// definition is where the schema of a kind is: in a published module, of which only this file is used.
type definition struct{ module, sum, file string }

// definitions are those of the manifests in docs/consuming.md, by apiVersion and kind. They pin the content of each module.
var definitions = map[string]definition{
	"secrets.hashicorp.com/v1beta1 VaultStaticSecret": {"github.com/hashicorp/vault-secrets-operator@v0.10.0", "h1:BjOTBJRqx1SLo7NeyqNJWRPDyfRscbqPtGU1U2LzArg=",
		"config/crd/bases/secrets.hashicorp.com_vaultstaticsecrets.yaml"},
	"external-secrets.io/v1 ExternalSecret": {"github.com/external-secrets/external-secrets@v0.16.2", "h1:iNY+gIgSyL5higXTfnz+hdPCaiB/43UiHLqE7HBpj68=",
		"config/crds/bases/external-secrets.io_externalsecrets.yaml"},
	"secrets-store.csi.x-k8s.io/v1 SecretProviderClass": {"sigs.k8s.io/secrets-store-csi-driver@v1.4.7", "h1:AyuwmPTW2GoPD2RjyVD3OrH1J9cdPZx+0h2qJvzbGXs=",
		"config/crd/bases/secrets-store.csi.x-k8s.io_secretproviderclasses.yaml"},
	"dapr.io/v1alpha1 Component": {"github.com/dapr/dapr@v1.14.0", "h1:SIQsNX1kH31JRDIS4k8IZ6eomM/BAcOP844PhQIT+BQ=", "charts/dapr/crds/components.yaml"},
}

// TestReadersManifests checks the manifests of docs/consuming.md: Deployments as types, the rest by the schema that its operator
// gives to a cluster. A field that the schema does not have is a fault here, where a cluster would drop it.
func TestReadersManifests(t *testing.T) {
	found := map[string]string{}
	for i, block := range strings.Split(read(t, "../../docs/consuming.md"), "```") {
		code, isYAML := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !isYAML {
			continue
		}
		var o struct{ APIVersion, Kind string }
		if err := json.Unmarshal(Objects(t, code)[0].JSON, &o); err != nil {
			t.Fatal(err)
		}
		found[o.APIVersion+" "+o.Kind] = code
	}
	if _, err := Decode(t, found["apps/v1 Deployment"]); err != nil {
		t.Error(err)
	}
	delete(found, "apps/v1 Deployment")
	for kind, d := range definitions {
		if found[kind] == "" {
			t.Errorf("the page has no %s", kind)
			continue
		}
		schema := d.schema(t, strings.Fields(kind)[0])
		if err := validate(t, schema, found[kind]); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, wrong := range faults(kind) {
			broken := strings.Replace(found[kind], wrong[0], wrong[1], 1)
			if broken == found[kind] || validate(t, schema, broken) == nil {
				t.Errorf("%s: nothing is wrong with %q in place of %q", kind, wrong[1], wrong[0])
			}
		}
		delete(found, kind)
	}
	for kind := range found {
		t.Errorf("the %s of the page is not checked", kind)
	}
}

// faults are what the schema of a kind must find, each in place of something that is right.
func faults(kind string) [][2]string {
	switch {
	case strings.HasSuffix(kind, "VaultStaticSecret"):
		return [][2]string{{"excludeRaw:", "excluderaw:"}, {"kind: Deployment", "kind: CronJob"}, {"refreshAfter: 5m", "refreshAfter: often"}, {"  type: kv-v2\n", ""}}
	case strings.HasSuffix(kind, "ExternalSecret"):
		return [][2]string{{"property:", "field:"}, {"kind: ClusterSecretStore", "kind: Vault"}, {"refreshInterval: 10m", "refreshInterval: [10m]"}}
	case strings.HasSuffix(kind, "SecretProviderClass"):
		return [][2]string{{"provider:", "providers:"}, {"roleName: speech", "roleName: 1"}}
	}
	return [][2]string{{"type: secretstores.hashicorp.vault\n", "types: secretstores.hashicorp.vault\n"}, {"{name: enginePath, value: secret}", "enginePath"}}
}

// schema returns the schema of one version, which knows no other fields than its own.
func (d definition) schema(t *testing.T, apiVersion string) *jsonschema.Schema {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", d.module)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("downloading %s: %v: %s", d.module, err, out)
	}
	var got struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &got); err != nil || got.Sum != d.sum {
		t.Fatalf("%s is %s, not %s (%v)", d.module, got.Sum, d.sum, err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(read(t, filepath.Join(got.Dir, d.file)), "openAPIV3Schema:", "openapiv3schema:")), &crd); err != nil {
		t.Fatal(err)
	}
	for _, v := range crd.Spec.Versions {
		if !strings.HasSuffix(apiVersion, "/"+v.Name) {
			continue
		}
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource("crd", strict(v.Schema.OpenAPIV3Schema)); err != nil {
			t.Fatal(err)
		}
		schema, err := compiler.Compile("crd")
		if err != nil {
			t.Fatal(err)
		}
		return schema
	}
	t.Fatalf("%s has no version %s", d.file, apiVersion)
	return nil
}

// strict closes each object of a schema that lists its fields, but metadata, whose fields a CRD does not list.
func strict(node any) any {
	switch n := node.(type) {
	case []any:
		for _, e := range n {
			strict(e)
		}
	case map[string]any:
		if _, open := n["x-kubernetes-preserve-unknown-fields"]; n["properties"] != nil && !open {
			n["additionalProperties"] = false
		}
		for _, e := range n {
			strict(e)
		}
	}
	return node
}

func validate(t *testing.T, schema *jsonschema.Schema, manifest string) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Objects(t, manifest)[0].JSON)))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}
