package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	meshconfig "istio.io/api/mesh/v1alpha1"
	v3 "istio.io/istio/pilot/pkg/xds/v3"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/test"
)

const poll = 200 * time.Millisecond

// status is what /status answers.
type status struct {
	sync.Mutex
	// How often the files were read: moves with every change of them.
	Loads int `json:"loads"`
	// Why the last change was refused, as `kubectl apply` would have; then the state before it holds.
	Refused string      `json:"refused"`
	Image   string      `json:"image"`
	Pods    []podStatus `json:"pods"`
}

func (s *status) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.Lock()
	defer s.Unlock()
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(s)
}

// serve runs until stop.
func serve(o options, stop <-chan os.Signal) error {
	if o.state == "" {
		directory, err := os.MkdirTemp("", "mesh")
		if err != nil {
			return err
		}
		defer os.RemoveAll(directory)
		o.state = directory
	}
	state := &status{}
	registry := newImages(o.network.control(15005))
	if o.image != "" {
		if err := registry.start(); err != nil {
			return err
		}
		image, err := registry.put(o.image)
		if err != nil {
			return err
		}
		state.Image = image
		fmt.Println("image", image)
	}
	reader, manifests, settings, world, err := load(o)
	if err != nil {
		return err
	}

	ads, err := net.Listen("tcp", o.network.control(15010))
	if err != nil {
		return err
	}
	gate := &gate{Listener: ads, open: make(chan struct{})}
	istiod := &istiod{}
	defer istiod.end()
	server := xds.NewFakeDiscoveryServer(istiod, xds.FakeOptions{
		Configs:           world.configList(),
		KubernetesObjects: world.objects(),
		MeshConfig:        settings,
		DebounceTime:      50 * time.Millisecond,
		ListenerBuilder:   func() (net.Listener, error) { return gate, nil },
	})
	generators := server.Discovery.Generators
	generators[v3.ExtensionConfigurationType] = newAgent(generators[v3.ExtensionConfigurationType], o.state)
	close(gate.open)

	state.Loads, state.Pods = 1, world.status
	pages, err := net.Listen("tcp", o.network.control(15014))
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	mux := http.NewServeMux()
	mux.Handle("/status", state)
	mux.Handle("/debug/", server.DiscoveryDebug)
	mux.Handle("POST /registry/start", answer(registry.start))
	mux.Handle("POST /registry/stop", answer(registry.stop))
	go func() { failed <- http.Serve(pages, mux) }()
	fmt.Printf("serving %d objects, %d pods on %s\n", len(manifests.documents), len(world.pods), ads.Addr())

	ticks := time.NewTicker(poll)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return nil
		case err := <-failed:
			return err
		case <-ticks.C:
		}
		if !reader.changed() {
			continue
		}
		next, err := reload(reader, &o.network, settings)
		if err == nil {
			err = world.become(next, server)
			world = next
		}
		state.Lock()
		state.Loads++
		state.Refused = ""
		if err != nil {
			state.Refused = err.Error()
			fmt.Fprintln(os.Stderr, "refused:", err)
		} else {
			state.Pods = world.status
			fmt.Println("applied")
		}
		state.Unlock()
	}
}

// load reads everything for the first time.
func load(o options) (*reader, *manifests, *meshconfig.MeshConfig, *world, error) {
	reader, err := newReader(o.directories)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	manifests, err := reader.read()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	settings, err := meshConfig(o.operator)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	world, err := newWorld(manifests, &o.network, settings)
	return reader, manifests, settings, world, err
}

func reload(reader *reader, network *network, settings *meshconfig.MeshConfig) (*world, error) {
	manifests, err := reader.read()
	if err != nil {
		return nil, err
	}
	return newWorld(manifests, network, settings)
}

func (w *world) configList() []config.Config {
	var list []config.Config
	for _, c := range w.configs {
		list = append(list, c)
	}
	return list
}

func (w *world) objects() []runtime.Object {
	var list []runtime.Object
	for _, o := range w.namespaces {
		list = append(list, o)
	}
	for _, o := range w.secrets {
		list = append(list, o)
	}
	for _, o := range w.services {
		list = append(list, o)
	}
	for _, o := range w.pods {
		list = append(list, o)
	}
	for _, o := range w.slices {
		list = append(list, o)
	}
	return list
}

// become tells istiod what is different in the next world. It waits a moment for more before it pushes,
// so Envoys get all of it at once, and the order is of no importance.
func (w *world) become(next *world, server *xds.FakeDiscoveryServer) error {
	kube := server.KubeClient().Kube()
	faults := []error{
		change(w.namespaces, next.namespaces, func(string) client[*corev1.Namespace] { return kube.CoreV1().Namespaces() }),
		change(w.secrets, next.secrets, func(n string) client[*corev1.Secret] { return kube.CoreV1().Secrets(n) }),
		change(w.services, next.services, func(n string) client[*corev1.Service] { return kube.CoreV1().Services(n) }),
		change(w.pods, next.pods, func(n string) client[*corev1.Pod] { return kube.CoreV1().Pods(n) }),
		change(w.slices, next.slices, func(n string) client[*discoveryv1.EndpointSlice] { return kube.DiscoveryV1().EndpointSlices(n) }),
	}
	store := server.Store()
	for key, c := range next.configs {
		old, known := w.configs[key]
		if known && c.Equals(&old) {
			continue
		}
		var err error
		if current := store.Get(c.GroupVersionKind, c.Name, c.Namespace); current != nil {
			c.ResourceVersion = current.ResourceVersion
			_, err = store.Update(c)
		} else {
			_, err = store.Create(c)
		}
		faults = append(faults, err)
	}
	for key, c := range w.configs {
		if _, stays := next.configs[key]; !stays {
			faults = append(faults, store.Delete(c.GroupVersionKind, c.Name, c.Namespace, nil))
		}
	}
	return errors.Join(faults...)
}

// client is what all clients of one kind of object have.
type client[T any] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
}

func change[T metav1.Object](old, next map[string]T, clients func(namespace string) client[T]) error {
	var faults []error
	ctx := context.Background()
	for key, object := range next {
		before, known := old[key]
		var err error
		switch {
		case !known:
			_, err = clients(object.GetNamespace()).Create(ctx, object, metav1.CreateOptions{})
		case !reflect.DeepEqual(before, object):
			_, err = clients(object.GetNamespace()).Update(ctx, object, metav1.UpdateOptions{})
		}
		faults = append(faults, err)
	}
	for key, object := range old {
		if _, stays := next[key]; !stays {
			faults = append(faults, clients(object.GetNamespace()).Delete(ctx, object.GetName(), metav1.DeleteOptions{}))
		}
	}
	return errors.Join(faults...)
}

// gate takes no Envoy in before istiod is complete.
type gate struct {
	net.Listener
	open chan struct{}
}

func (g *gate) Accept() (net.Conn, error) {
	<-g.open
	return g.Listener.Accept()
}

// istiod lets Istio's own test server run outside of a test.
type istiod struct{ cleanups []func() }

var _ test.Failer = &istiod{}

func (i *istiod) end() {
	for n := len(i.cleanups) - 1; n >= 0; n-- {
		i.cleanups[n]()
	}
}

func (i *istiod) Fail()                          { i.FailNow() }
func (i *istiod) FailNow()                       { i.Fatal("istiod failed") }
func (i *istiod) Fatalf(format string, a ...any) { i.Fatal(fmt.Sprintf(format, a...)) }
func (i *istiod) Log(a ...any)                   { fmt.Fprintln(os.Stderr, a...) }
func (i *istiod) Logf(format string, a ...any)   { i.Log(fmt.Sprintf(format, a...)) }
func (i *istiod) Helper()                        {}
func (i *istiod) Cleanup(f func())               { i.cleanups = append(i.cleanups, f) }
func (i *istiod) Skip(a ...any)                  { i.Fatal(a...) }

func (i *istiod) Fatal(a ...any) {
	fmt.Fprintln(os.Stderr, append([]any{"error:"}, a...)...)
	os.Exit(1)
}

func (i *istiod) TempDir() string {
	directory, err := os.MkdirTemp("", "istiod")
	if err != nil {
		i.Fatal(err)
	}
	i.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}
