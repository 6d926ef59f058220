package main

import (
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
)

// check prints every message of validation, of the analyzers of `istioctl analyze`, and of what neither
// of them looks at.
func check(o options) error {
	_, manifests, settings, world, err := load(o)
	if err != nil {
		return err
	}
	messages, err := analyse(manifests, world)
	if err != nil {
		return fmt.Errorf("the analyzers failed: %w", err)
	}
	messages = append(messages, authorizations(manifests, world, settings)...)
	for _, message := range messages {
		fmt.Println(message)
	}
	if len(messages) > 0 {
		return found
	}
	fmt.Printf("%d objects, %d of Istio, %d pods: nothing to say against them\n",
		len(manifests.documents), len(manifests.configs), len(world.pods))
	return nil
}

// analyse runs the analyzers on all namespaces, with the pods that the Deployments stand for.
func analyse(m *manifests, w *world) ([]string, error) {
	analyzer := local.NewIstiodAnalyzer(analyzers.AllCombined(), "", "istio-system", nil)
	var sources []local.ReaderSource
	for _, document := range m.documents {
		sources = append(sources, local.ReaderSource{Name: document.name, Reader: strings.NewReader(document.yaml)})
	}
	for _, pod := range w.pods {
		text, err := yaml.Marshal(pod)
		if err != nil {
			return nil, err
		}
		sources = append(sources, local.ReaderSource{Name: "pod " + key(pod), Reader: strings.NewReader(string(text))})
	}
	// First, or there would be no place for pods, services and namespaces, and what looks at them would
	// be left out without a word.
	if err := analyzer.AddTestReaderKubeSource(sources); err != nil {
		return nil, err
	}
	if err := analyzer.AddDefaultResources(); err != nil {
		return nil, err
	}
	result, err := analyzer.Analyze(make(chan struct{}))
	if err != nil {
		return nil, err
	}
	if len(result.SkippedAnalyzers) > 0 {
		return nil, fmt.Errorf("these did not run: %v", result.SkippedAnalyzers)
	}
	var messages []string
	for _, message := range result.Messages {
		messages = append(messages, message.String())
	}
	return messages, nil
}
