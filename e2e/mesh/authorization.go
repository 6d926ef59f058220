package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	meshconfig "istio.io/api/mesh/v1alpha1"
	security "istio.io/api/security/v1beta1"
)

// elsewhere has the accounts of pods that the manifests name and do not have.
var elsewhere = []string{
	// Istio's ingress gateway has one of these where Helm installs it, and that of installation/ where
	// istioctl does.
	"istio-system/istio-ingressgateway",
	"istio-ingress/istio-ingress",
}

// authorizations says which AuthorizationPolicies name a caller that does not exist, or a port that no
// selected pod has. Istio takes both for what they say: nobody is let in.
func authorizations(m *manifests, w *world, settings *meshconfig.MeshConfig) []string {
	accounts := slices.Clone(elsewhere)
	for _, pod := range w.pods {
		account := pod.Spec.ServiceAccountName
		if account == "" {
			account = "default"
		}
		accounts = append(accounts, pod.Namespace+"/"+account)
	}
	var callers []string
	for _, account := range accounts {
		namespace, name, _ := strings.Cut(account, "/")
		callers = append(callers, fmt.Sprintf("%s/ns/%s/sa/%s", settings.TrustDomain, namespace, name))
	}
	var messages []string
	for _, c := range m.configs {
		policy, ok := c.Spec.(*security.AuthorizationPolicy)
		if !ok {
			continue
		}
		say := func(format string, a ...any) {
			name := fmt.Sprintf("AuthorizationPolicy %s/%s: ", c.Namespace, c.Name)
			messages = append(messages, name+fmt.Sprintf(format, a...))
		}
		ports := containerPorts(w, c.Namespace, policy, settings.RootNamespace)
		for _, rule := range policy.Rules {
			for _, from := range rule.From {
				for _, principal := range from.Source.GetPrincipals() {
					if !slices.ContainsFunc(callers, func(caller string) bool { return matches(principal, caller) }) {
						say("principal %s: no pod has this account", principal)
					}
				}
				for _, account := range from.Source.GetServiceAccounts() {
					// Without a namespace, it is of that of the policy.
					if !strings.Contains(account, "/") {
						account = c.Namespace + "/" + account
					}
					if !slices.Contains(accounts, account) {
						say("service account %s: no pod has it", account)
					}
				}
			}
			for _, to := range rule.To {
				for _, port := range to.Operation.GetPorts() {
					if !slices.Contains(ports, port) {
						say("port %s: no container of the selected pods has it", port)
					}
				}
			}
		}
	}
	slices.Sort(messages)
	return messages
}

// containerPorts has the ports of the pods that a policy is for.
func containerPorts(w *world, namespace string, policy *security.AuthorizationPolicy, root string) []string {
	var ports []string
	for _, pod := range w.pods {
		if (pod.Namespace != namespace && namespace != root) || !selects(policy.Selector.GetMatchLabels(), pod) {
			continue
		}
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				if port.Protocol != corev1.ProtocolUDP {
					ports = append(ports, strconv.Itoa(int(port.ContainerPort)))
				}
			}
		}
	}
	return ports
}

// matches compares as Istio does: a star stands for anything at the beginning or at the end.
func matches(pattern, text string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(text, prefix)
	}
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(text, suffix)
	}
	return pattern == text
}
