package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
)

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
