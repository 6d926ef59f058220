package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pkg/config/mesh"
)

// podStatus says what is to run at the address of a pod.
type podStatus struct {
	Name       string            `json:"name"`
	Namespace  string            `json:"namespace"`
	Deployment string            `json:"deployment"`
	Labels     map[string]string `json:"labels"`
	Address    string            `json:"address"`
	// Where its sidecar takes what it sends, at the port of the Service that is called.
	Outbound string `json:"outbound"`
	// What its Envoy is: `sidecar`, `router`, or nothing if it has none.
	Proxy string `json:"proxy"`
	// The node of its Envoy's bootstrap.
	Node any `json:"node"`
	// The labels of its Envoy's metrics.
	StatsTags  []statsTag        `json:"stats_tags"`
	Containers []containerStatus `json:"containers"`
}

type statsTag struct {
	Name  string `json:"tag_name"`
	Regex string `json:"regex"`
}

type containerStatus struct {
	Name  string            `json:"name"`
	Image string            `json:"image"`
	Env   map[string]string `json:"env"`
	// The port of the manifest, and where the container must listen to be reached by it.
	Ports []portStatus `json:"ports"`
	// The path of the readiness probe, and its port as above.
	Ready *probeStatus `json:"ready"`
}

type portStatus struct {
	Port   int32  `json:"port"`
	Listen string `json:"listen"`
}

type probeStatus struct {
	Path   string `json:"path"`
	Listen string `json:"listen"`
}

// describe says what runs in a pod; an error if a container asks for what the manifests do not have.
func (w *world) describe(pod *corev1.Pod, deployment string, m *manifests, settings *meshconfig.MeshConfig) (podStatus, error) {
	status := podStatus{
		Name: pod.Name, Namespace: pod.Namespace, Deployment: deployment,
		Labels: pod.Labels, Address: pod.Status.PodIP, Proxy: w.proxyOf(pod, m),
	}
	if status.Proxy != "" {
		status.Node = node(pod, deployment, status.Proxy)
	}
	tags, err := statsTags(pod, settings)
	status.StatsTags = tags
	faults := []error{err}
	for _, container := range pod.Spec.Containers {
		env, err := environmentOf(pod, &container, m)
		faults = append(faults, err)
		c := containerStatus{Name: container.Name, Image: container.Image, Env: env}
		listen := func(port int32) string {
			if status.Proxy == sidecar {
				port += behind
			}
			return fmt.Sprintf("%s:%d", pod.Status.PodIP, port)
		}
		for _, port := range container.Ports {
			c.Ports = append(c.Ports, portStatus{port.ContainerPort, listen(port.ContainerPort)})
		}
		if probe := container.ReadinessProbe; probe != nil && probe.HTTPGet != nil {
			port, err := portOf(&container, probe.HTTPGet.Port)
			faults = append(faults, err)
			c.Ready = &probeStatus{probe.HTTPGet.Path, listen(port)}
		}
		status.Containers = append(status.Containers, c)
	}
	return status, errors.Join(faults...)
}

// proxyOf says what Envoy the injector would give to a pod.
func (w *world) proxyOf(pod *corev1.Pod, m *manifests) string {
	for _, c := range m.configs {
		if gateway, ok := c.Spec.(*networking.Gateway); ok && selects(gateway.Selector, pod) {
			return router
		}
	}
	if pod.Annotations["inject.istio.io/templates"] == "gateway" {
		return router
	}
	switch pod.Labels["sidecar.istio.io/inject"] {
	case "true":
		return sidecar
	case "false":
		return ""
	}
	namespace := w.namespaces["/"+pod.Namespace]
	if namespace != nil && namespace.Labels["istio-injection"] == "enabled" {
		return sidecar
	}
	return ""
}

// inject adds what tells istiod and the analyzers that a pod has a sidecar.
func inject(pod *corev1.Pod) {
	containers := slices.Clone(pod.Spec.Containers)
	pod.Spec.Containers = append(containers, corev1.Container{Name: "istio-proxy", Image: "istio/proxyv2"})
}

func node(pod *corev1.Pod, deployment, proxy string) any {
	metadata := map[string]any{
		"NAME": pod.Name, "NAMESPACE": pod.Namespace, "WORKLOAD_NAME": deployment,
		"LABELS": pod.Labels, "INSTANCE_IPS": pod.Status.PodIP,
		"CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.31.0", "GENERATOR": "",
	}
	if proxy == sidecar {
		metadata["INTERCEPTION_MODE"] = "NONE"
	}
	return map[string]any{
		"id":       strings.Join([]string{proxy, pod.Status.PodIP, pod.Name + "." + pod.Namespace, pod.Namespace + ".svc." + domain}, "~"),
		"cluster":  deployment + "." + pod.Namespace,
		"metadata": metadata,
	}
}

// statsTags is what Istio's bootstrap makes of extraStatTags, of the mesh or of the pod.
func statsTags(pod *corev1.Pod, settings *meshconfig.MeshConfig) ([]statsTag, error) {
	proxy := settings.DefaultConfig
	if own, ok := pod.Annotations["proxy.istio.io/config"]; ok {
		applied, err := mesh.ApplyProxyConfig(own, settings)
		if err != nil {
			return nil, fmt.Errorf("annotation proxy.istio.io/config: %w", err)
		}
		proxy = applied.DefaultConfig
	}
	tags := []statsTag{}
	for _, name := range proxy.ExtraStatTags {
		tags = append(tags, statsTag{name, fmt.Sprintf(`(%s=\.=(.*?);\.;)`, name)})
	}
	return tags, nil
}

// environmentOf is what the kubelet would put into a container's environment.
func environmentOf(pod *corev1.Pod, container *corev1.Container, m *manifests) (map[string]string, error) {
	env := map[string]string{}
	var faults []error
	missing := func(what, name string, optional *bool) {
		if optional == nil || !*optional {
			faults = append(faults, fmt.Errorf("container %s: there is no %s %s", container.Name, what, name))
		}
	}
	for _, source := range container.EnvFrom {
		if ref := source.ConfigMapRef; ref != nil {
			values, ok := m.configMap(pod.Namespace, ref.Name)
			if !ok {
				missing("ConfigMap", ref.Name, ref.Optional)
			}
			for name, value := range values {
				env[source.Prefix+name] = value
			}
		}
		if ref := source.SecretRef; ref != nil {
			values, ok := m.secret(pod.Namespace, ref.Name)
			if !ok {
				missing("Secret", ref.Name, ref.Optional)
			}
			for name, value := range values {
				env[source.Prefix+name] = value
			}
		}
	}
	for _, variable := range container.Env {
		from := variable.ValueFrom
		switch {
		case from == nil:
			env[variable.Name] = variable.Value
		case from.FieldRef != nil:
			value, err := field(pod, from.FieldRef.FieldPath)
			faults = append(faults, err)
			env[variable.Name] = value
		case from.ConfigMapKeyRef != nil:
			ref := from.ConfigMapKeyRef
			values, _ := m.configMap(pod.Namespace, ref.Name)
			if value, ok := values[ref.Key]; ok {
				env[variable.Name] = value
			} else {
				missing("key "+ref.Key+" in ConfigMap", ref.Name, ref.Optional)
			}
		case from.SecretKeyRef != nil:
			ref := from.SecretKeyRef
			values, _ := m.secret(pod.Namespace, ref.Name)
			if value, ok := values[ref.Key]; ok {
				env[variable.Name] = value
			} else {
				missing("key "+ref.Key+" in Secret", ref.Name, ref.Optional)
			}
		default:
			faults = append(faults, fmt.Errorf("container %s: %s: this source is not understood here", container.Name, variable.Name))
		}
	}
	return env, errors.Join(faults...)
}

func (m *manifests) configMap(namespace, name string) (map[string]string, bool) {
	for _, object := range m.configMaps {
		if object.Namespace == namespace && object.Name == name {
			return object.Data, true
		}
	}
	return nil, false
}

func (m *manifests) secret(namespace, name string) (map[string]string, bool) {
	for _, object := range m.secrets {
		if object.Namespace == namespace && object.Name == name {
			values := maps.Clone(object.StringData)
			if values == nil {
				values = map[string]string{}
			}
			for name, value := range object.Data {
				values[name] = string(value)
			}
			return values, true
		}
	}
	return nil, false
}

func field(pod *corev1.Pod, path string) (string, error) {
	if label, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return pod.Labels[strings.TrimSuffix(label, "']")], nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "status.podIP":
		return pod.Status.PodIP, nil
	}
	return "", fmt.Errorf("the field %s is not understood here", path)
}
