package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/gvk"
)

const (
	// Tells the pods of a Deployment apart.
	podLabel = "mesh/pod"
	// A container listens this much above its port, which is its sidecar's: where iptables would
	// redirect, two listeners need two ports.
	behind = 10000
	// What a pod sends goes to its sidecar at an address of its own.
	outbound = 100
	// Ports below are for root.
	unprivileged = 1024
	router       = "router"
	sidecar      = "sidecar"
)

// network deals out addresses. A Deployment keeps its number for as long as the program runs.
type network struct {
	number      byte
	deployments map[string]int
}

func (n *network) control(port int) string {
	return fmt.Sprintf("127.%d.0.1:%d", n.number, port)
}

// pod returns the address of a pod, and the one where its sidecar takes what it sends.
func (n *network) pod(namespace, deployment string, replica int) (string, string, error) {
	key := namespace + "/" + deployment
	number, known := n.deployments[key]
	if !known {
		number = len(n.deployments) + 1
		n.deployments[key] = number
	}
	if number > outbound || replica > 253 {
		return "", "", fmt.Errorf("deployment %s: there is no address for replica %d", key, replica)
	}
	address := func(third int) string { return fmt.Sprintf("127.%d.%d.%d", n.number, third, replica+1) }
	return address(number), address(number + outbound), nil
}

// world is what a cluster would make of manifests.
type world struct {
	namespaces map[string]*corev1.Namespace
	services   map[string]*corev1.Service
	pods       map[string]*corev1.Pod
	slices     map[string]*discoveryv1.EndpointSlice
	secrets    map[string]*corev1.Secret
	configs    map[string]config.Config
	status     []podStatus
}

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

func key(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func newWorld(m *manifests, n *network, settings *meshconfig.MeshConfig) (*world, error) {
	w := &world{
		namespaces: map[string]*corev1.Namespace{},
		services:   map[string]*corev1.Service{},
		pods:       map[string]*corev1.Pod{},
		slices:     map[string]*discoveryv1.EndpointSlice{},
		secrets:    map[string]*corev1.Secret{},
		configs:    map[string]config.Config{},
	}
	for _, namespace := range m.namespaces {
		w.namespaces[key(namespace)] = namespace
	}
	for _, secret := range m.secrets {
		w.secrets[key(secret)] = secret
	}
	for _, c := range m.configs {
		if c.GroupVersionKind == gvk.Sidecar {
			return nil, fmt.Errorf("%s: the listeners of a pod are a Sidecar here, and a pod has one only", c.Name)
		}
		w.configs[configKey(c)] = c
	}
	var faults []error
	for _, deployment := range m.deployments {
		replicas := 1
		if deployment.Spec.Replicas != nil {
			replicas = int(*deployment.Spec.Replicas)
		}
		for replica := range replicas {
			address, out, err := n.pod(deployment.Namespace, deployment.Name, replica)
			if err != nil {
				return nil, err
			}
			pod, err := newPod(deployment, replica, address)
			if err != nil {
				return nil, err
			}
			w.pods[key(pod)] = pod
			status, err := w.describe(pod, deployment.Name, m, settings)
			status.Outbound = out
			if status.Proxy == sidecar {
				inject(pod)
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("pod %s: it would not start: %w", key(pod), err))
			}
			w.status = append(w.status, status)
		}
	}
	for i, service := range m.services {
		if service.Spec.ClusterIP == "" {
			service.Spec.ClusterIP = fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		}
		w.services[key(service)] = service
		if len(service.Spec.Selector) > 0 {
			slice := w.endpoints(service)
			w.slices[key(slice)] = slice
		}
	}
	for _, c := range w.configs {
		if gateway, ok := c.Spec.(*networking.Gateway); ok {
			faults = append(faults, w.bind(gateway, c.Name))
		}
	}
	for i := range w.status {
		status := &w.status[i]
		if status.Proxy == sidecar {
			c := w.listeners(w.pods[status.Namespace+"/"+status.Name], status.Outbound)
			w.configs[configKey(c)] = c
		}
	}
	return w, errors.Join(faults...)
}

func configKey(c config.Config) string {
	return c.GroupVersionKind.String() + "/" + c.Namespace + "/" + c.Name
}

func newPod(deployment *appsv1.Deployment, replica int, address string) (*corev1.Pod, error) {
	name := fmt.Sprintf("%s-%d", deployment.Name, replica)
	podLabels := maps.Clone(deployment.Spec.Template.Labels)
	if !labels.SelectorFromSet(deployment.Spec.Selector.MatchLabels).Matches(labels.Set(podLabels)) {
		return nil, fmt.Errorf("deployment %s: its selector does not match its pods", key(deployment))
	}
	podLabels[podLabel] = name
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: deployment.Namespace,
			Labels: podLabels, Annotations: deployment.Spec.Template.Annotations,
		},
		Spec: deployment.Spec.Template.Spec,
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}, nil
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

func selects(selector map[string]string, pod *corev1.Pod) bool {
	return labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels))
}

// bind gives the servers of a gateway the address of its pod: on one machine 0.0.0.0 is for everybody.
func (w *world) bind(gateway *networking.Gateway, name string) error {
	var addresses []string
	for _, pod := range w.pods {
		if selects(gateway.Selector, pod) {
			addresses = append(addresses, pod.Status.PodIP)
		}
	}
	// A selector that matches nothing is no error in a cluster either.
	if len(addresses) == 0 {
		return nil
	}
	if len(addresses) > 1 {
		return fmt.Errorf("gateway %s: it has %d pods, but one address only", name, len(addresses))
	}
	for _, server := range gateway.Servers {
		if server.Bind == "" {
			server.Bind = addresses[0]
		}
	}
	return nil
}

// listeners has the listeners of a pod's sidecar, which iptables would lead to: inbound, one for each
// port that a Service has on the pod, and outbound, one for each port of any Service.
func (w *world) listeners(pod *corev1.Pod, out string) config.Config {
	spec := &networking.Sidecar{
		WorkloadSelector: &networking.WorkloadSelector{Labels: map[string]string{podLabel: pod.Name}},
	}
	ports := map[int32]bool{}
	for _, name := range slices.Sorted(maps.Keys(w.services)) {
		service := w.services[name]
		if service.Namespace != pod.Namespace || len(service.Spec.Selector) == 0 || !selects(service.Spec.Selector, pod) {
			continue
		}
		for _, port := range service.Spec.Ports {
			target, ok := targetOf(pod, port)
			if !ok || ports[target] {
				continue
			}
			ports[target] = true
			spec.Ingress = append(spec.Ingress, &networking.IstioIngressListener{
				Port: &networking.SidecarPort{Number: uint32(target), Name: port.Name, Protocol: protocolOf(port)},
				Bind: pod.Status.PodIP,
				// 0.0.0.0 is the pod's own address.
				DefaultEndpoint: "0.0.0.0:" + strconv.Itoa(int(target)+behind),
				CaptureMode:     networking.CaptureMode_NONE,
			})
		}
	}
	for _, port := range w.servicePorts() {
		spec.Egress = append(spec.Egress, &networking.IstioEgressListener{
			Port:        &networking.SidecarPort{Number: uint32(port.Port), Name: port.Name, Protocol: protocolOf(port)},
			Bind:        out,
			Hosts:       []string{"*/*"},
			CaptureMode: networking.CaptureMode_NONE,
		})
	}
	return config.Config{
		Meta: config.Meta{GroupVersionKind: gvk.Sidecar, Name: pod.Name, Namespace: pod.Namespace, Domain: domain},
		Spec: spec,
	}
}

// servicePorts has each port of a Service once.
func (w *world) servicePorts() []corev1.ServicePort {
	ports := map[int32]corev1.ServicePort{}
	for _, name := range slices.Sorted(maps.Keys(w.services)) {
		for _, port := range w.services[name].Spec.Ports {
			if _, known := ports[port.Port]; !known && port.Port >= unprivileged {
				ports[port.Port] = port
			}
		}
	}
	return slices.SortedFunc(maps.Values(ports), func(a, b corev1.ServicePort) int { return int(a.Port - b.Port) })
}

// protocolOf reads a protocol as Istio does: from appProtocol, else from the name.
func protocolOf(port corev1.ServicePort) string {
	name := port.Name
	if port.AppProtocol != nil {
		name = *port.AppProtocol
	}
	protocol, _, _ := strings.Cut(name, "-")
	return strings.ToUpper(protocol)
}

func (w *world) endpoints(service *corev1.Service) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: service.Name, Namespace: service.Namespace,
			Labels: map[string]string{discoveryv1.LabelServiceName: service.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	yes := true
	var some *corev1.Pod
	// Ordered, so that the same pods make the same slice.
	for _, status := range w.status {
		pod := w.pods[status.Namespace+"/"+status.Name]
		if pod.Namespace != service.Namespace || !selects(service.Spec.Selector, pod) {
			continue
		}
		some = pod
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{pod.Status.PodIP},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: pod.Name, Namespace: pod.Namespace},
		})
	}
	if some == nil {
		return slice
	}
	for _, port := range service.Spec.Ports {
		if target, ok := targetOf(some, port); ok {
			protocol := corev1.ProtocolTCP
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port.Name, Port: &target, Protocol: &protocol})
		}
	}
	return slice
}

func targetOf(pod *corev1.Pod, port corev1.ServicePort) (int32, bool) {
	if port.TargetPort.Type == intstr.Int && port.TargetPort.IntVal == 0 {
		return port.Port, true
	}
	for _, container := range pod.Spec.Containers {
		if target, err := portOf(&container, port.TargetPort); err == nil {
			return target, true
		}
	}
	return 0, false
}

func portOf(container *corev1.Container, port intstr.IntOrString) (int32, error) {
	if port.Type == intstr.Int {
		return port.IntVal, nil
	}
	for _, named := range container.Ports {
		if named.Name == port.StrVal {
			return named.ContainerPort, nil
		}
	}
	return 0, fmt.Errorf("container %s has no port %q", container.Name, port.StrVal)
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
