package main

import (
	"errors"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pkg/config"
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

func selects(selector map[string]string, pod *corev1.Pod) bool {
	return labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels))
}
