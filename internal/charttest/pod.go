package charttest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Pod is what a kubelet needs to know of a pod to start its container.
type Pod struct {
	ServiceAccountName            string
	TerminationGracePeriodSeconds int
	Containers                    []struct {
		Args         []string
		Env          []struct{ Name, Value string }
		VolumeMounts []struct{ Name, MountPath string }
	}
	Volumes []struct {
		Name string
		source
		Projected struct{ Sources []source }
	}
}

// source fills a volume, or a part of one.
type source struct {
	ConfigMap struct {
		Name  string
		Items []item
	}
	Secret struct {
		Name, SecretName string // the one in a projected volume, the other outside
		Items            []item
	}
	ServiceAccountToken struct{ Audience, Path string }
}

type item struct{ Key, Path string }

// Contents says what is in the volumes.
type Contents struct {
	ConfigMap, Secret func(name string) map[string]string // values by key
	Token             func(audience string) string        // of the pod's service account
}

// PodOf returns the pod of the Deployment among the objects, and its template.
func PodOf(tb testing.TB, objects []Object) (Pod, map[string]any) {
	tb.Helper()
	for _, o := range objects {
		if o.Kind != "Deployment" {
			continue
		}
		var typed struct {
			Spec struct{ Template struct{ Spec Pod } }
		}
		var template struct {
			Spec struct{ Template map[string]any }
		}
		for _, into := range []any{&typed, &template} {
			if err := json.Unmarshal(o.JSON, into); err != nil {
				tb.Fatal(err)
			}
		}
		return typed.Spec.Template.Spec, template.Spec.Template
	}
	tb.Fatal("there is no Deployment")
	return Pod{}, nil
}

// Start does what a kubelet does before it starts the container: it fills the volumes, here below root instead of /, and
// returns the environment, in which paths are changed likewise.
func (p Pod) Start(tb testing.TB, root string, c Contents) map[string]string {
	tb.Helper()
	env := map[string]string{}
	for _, v := range p.Containers[0].Env {
		env[v.Name] = v.Value
	}
	for _, mount := range p.Containers[0].VolumeMounts {
		dir := filepath.Join(root, mount.MountPath)
		for name, text := range p.files(tb, mount.Name, c) {
			write(tb, filepath.Join(dir, name), text)
		}
		for name, value := range env {
			if strings.HasPrefix(value, mount.MountPath+"/") {
				env[name] = filepath.Join(root, value)
			}
		}
	}
	return env
}

// files returns the texts of a volume by their names in it.
func (p Pod) files(tb testing.TB, volume string, c Contents) map[string]string {
	tb.Helper()
	files := map[string]string{}
	for _, v := range p.Volumes {
		if v.Name != volume {
			continue
		}
		for _, s := range append(v.Projected.Sources, v.source) {
			s.addTo(tb, files, c)
		}
	}
	return files
}

func (s source) addTo(tb testing.TB, files map[string]string, c Contents) {
	tb.Helper()
	pick := func(from map[string]string, items []item) {
		for _, i := range items {
			text, ok := from[i.Key]
			if !ok {
				tb.Errorf("no key %s for %s", i.Key, i.Path)
			}
			files[i.Path] = text
		}
		if items == nil {
			maps.Copy(files, from)
		}
	}
	if s.ConfigMap.Name != "" {
		pick(c.ConfigMap(s.ConfigMap.Name), s.ConfigMap.Items)
	}
	if name := s.Secret.Name + s.Secret.SecretName; name != "" {
		pick(c.Secret(name), s.Secret.Items)
	}
	if s.ServiceAccountToken.Path != "" {
		files[s.ServiceAccountToken.Path] = c.Token(s.ServiceAccountToken.Audience)
	}
}

func write(tb testing.TB, file, text string) {
	tb.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}
