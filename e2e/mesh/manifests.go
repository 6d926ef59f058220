package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	meshconfig "istio.io/api/mesh/v1alpha1"
	istio "istio.io/istio/manifests"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	istiocrd "istio.io/istio/pkg/config/crd"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/kube"
)

const domain = "cluster.local"

// manifests is what kustomizations say: every object as YAML, and what this program makes use of.
type manifests struct {
	documents   []document
	configs     []config.Config
	namespaces  []*corev1.Namespace
	deployments []*appsv1.Deployment
	services    []*corev1.Service
	configMaps  []*corev1.ConfigMap
	secrets     []*corev1.Secret
}

type document struct{ name, yaml string }

// reader turns kustomizations into manifests and refuses what a cluster would refuse: by the schemas
// and CEL rules of Istio's CRDs, by istiod's own validation, and by the types of Kubernetes.
type reader struct {
	directories []string
	validator   *istiocrd.Validator
	decoder     runtime.Decoder
	files       recorder
}

func newReader(directories []string) (*reader, error) {
	crds, err := istio.FS.ReadFile("charts/base/files/crd-all.gen.yaml")
	if err != nil {
		return nil, err
	}
	// The validator reads files only.
	dir, err := os.MkdirTemp("", "mesh-crds")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "crds.yaml")
	if err := os.WriteFile(file, crds, 0o600); err != nil {
		return nil, err
	}
	validator, err := istiocrd.NewValidatorFromFilesWithOptions([]string{file}, istiocrd.WithoutCRDValidation())
	if err != nil {
		return nil, err
	}
	strict := serializer.NewCodecFactory(kube.IstioScheme, serializer.EnableStrict)
	return &reader{
		directories: directories,
		validator:   validator,
		decoder:     strict.UniversalDeserializer(),
		files:       recorder{filesys.MakeFsOnDisk(), map[string]time.Time{}},
	}, nil
}

// read reports every fault at once.
func (r *reader) read() (*manifests, error) {
	before := r.files.again()
	m := &manifests{}
	seen := map[string]string{}
	var faults []error
	settings := krusty.MakeDefaultOptions()
	// As kubectl does: a kustomization may say itself how it is ordered.
	settings.Reorder = krusty.ReorderOptionUnspecified
	for _, directory := range r.directories {
		resources, err := krusty.MakeKustomizer(settings).Run(r.files, directory)
		if err != nil {
			// What it did not come to is followed as well: the fault may be repaired there.
			for file, time := range before {
				if _, again := r.files.read[file]; !again {
					r.files.read[file] = time
				}
			}
			return nil, fmt.Errorf("kustomize %s: %w", directory, err)
		}
		for _, resource := range resources.Resources() {
			id := resource.CurId()
			name := fmt.Sprintf("%s %s/%s", id.Kind, id.EffectiveNamespace(), id.Name)
			if other, twice := seen[id.String()]; twice {
				faults = append(faults, fmt.Errorf("%s: both in %s and in %s", name, other, directory))
				continue
			}
			seen[id.String()] = directory
			text, err := resource.AsYAML()
			if err == nil {
				m.documents = append(m.documents, document{name, string(text)})
				err = r.add(m, id.Group, string(text))
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return m, nil
}

func (r *reader) add(m *manifests, group, text string) error {
	if strings.HasSuffix(group, "istio.io") {
		if err := r.validator.ValidateCustomResourceYAML(text, nil); err != nil {
			return err
		}
		configs, others, err := crd.ParseInputs(text)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return errors.New("istiod does not know this kind")
		}
		for _, c := range configs {
			// Short names of hosts end in it.
			c.Domain = domain
			m.configs = append(m.configs, c)
		}
		return nil
	}
	object, _, err := r.decoder.Decode([]byte(text), nil, nil)
	if err != nil {
		return err
	}
	switch o := object.(type) {
	case *corev1.Namespace:
		m.namespaces = append(m.namespaces, o)
	case *appsv1.Deployment:
		m.deployments = append(m.deployments, o)
	case *corev1.Service:
		m.services = append(m.services, o)
	case *corev1.ConfigMap:
		m.configMaps = append(m.configMaps, o)
	case *corev1.Secret:
		m.secrets = append(m.secrets, o)
	}
	return nil
}

// meshConfig is the settings of an installation by this IstioOperator, where there are no certificates
// and nobody collects traces.
func meshConfig(operator string) (*meshconfig.MeshConfig, error) {
	settings, err := mesh.ApplyMeshConfigDefaults("enableAutoMtls: false\nenableTracing: false\ndefaultProviders: {}\n")
	if err != nil || operator == "" {
		return settings, err
	}
	text, err := os.ReadFile(operator)
	if err != nil {
		return nil, err
	}
	var installation struct {
		Spec struct {
			MeshConfig map[string]any `json:"meshConfig"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &installation); err != nil {
		return nil, fmt.Errorf("%s: %w", operator, err)
	}
	wanted, err := yaml.Marshal(installation.Spec.MeshConfig)
	if err != nil {
		return nil, err
	}
	settings, err = mesh.ApplyMeshConfig(string(wanted), settings)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operator, err)
	}
	return settings, nil
}

// changed says whether a file that was read last time is another one by now.
func (r *reader) changed() bool {
	for file, then := range r.files.read {
		if !modified(file).Equal(then) {
			return true
		}
	}
	return false
}

// recorder is the file system of kustomize, and remembers what was read from it.
type recorder struct {
	filesys.FileSystem
	read map[string]time.Time
}

// again forgets what was read, and returns it as it is now.
func (r recorder) again() map[string]time.Time {
	before := maps.Clone(r.read)
	for file := range before {
		before[file] = modified(file)
	}
	clear(r.read)
	return before
}

func (r recorder) ReadFile(file string) ([]byte, error) {
	// Before the content: a change in between is then seen as one.
	r.read[file] = modified(file)
	return r.FileSystem.ReadFile(file)
}

// CleanedAbs is what kustomize asks about a file before it reads it: one that is not there may come.
func (r recorder) CleanedAbs(path string) (filesys.ConfirmedDir, string, error) {
	directory, name, err := r.FileSystem.CleanedAbs(path)
	if err != nil {
		r.read[path] = modified(path)
	}
	return directory, name, err
}

// modified is zero for a file that is not there.
func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
