package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/protobuf/types/known/anypb"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/util/sets"
	"istio.io/istio/pkg/wasm"
)

// agent does what the istio-agent of every pod does to a WasmPlugin on its way from istiod to Envoy:
// it fetches the module and names the file instead, and where it cannot, it puts a filter in its place
// that lets everything pass (FAIL_OPEN) or nothing. It is the agent's own code, with one cache for all
// pods.
type agent struct {
	istiod model.XdsResourceGenerator
	cache  wasm.Cache
}

func newAgent(istiod model.XdsResourceGenerator, directory string) agent {
	options := wasm.Options{InsecureRegistries: sets.New("*")}
	return agent{istiod, wasm.NewLocalFileCache(directory, options)}
}

// Generate is called for each Envoy that asks for plugins.
func (a agent) Generate(
	proxy *model.Proxy, watched *model.WatchedResource, push *model.PushRequest,
) (model.Resources, model.XdsLogDetails, error) {
	resources, details, err := a.istiod.Generate(proxy, watched, push)
	if err != nil || resources == nil {
		return resources, details, err
	}
	plugins := make([]*anypb.Any, len(resources))
	for i, resource := range resources {
		plugins[i] = resource.Resource
	}
	if err := wasm.MaybeConvertWasmExtensionConfig(plugins, a.cache); err != nil {
		// The agent keeps such an update from Envoy.
		return nil, details, nil
	}
	converted := make(model.Resources, len(resources))
	for i, resource := range resources {
		converted[i] = &discovery.Resource{Name: resource.Name, Resource: plugins[i]}
	}
	return converted, details, nil
}

// images is a registry in memory, which can be away for a while.
type images struct {
	sync.Mutex
	address string
	handler http.Handler
	server  *http.Server
}

func newImages(address string) *images {
	return &images{address: address, handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

func (i *images) start() error {
	i.Lock()
	defer i.Unlock()
	if i.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", i.address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: i.handler}
	i.server = server
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	return nil
}

// stop ends it with all its connections. It keeps what it has.
func (i *images) stop() error {
	i.Lock()
	defer i.Unlock()
	if i.server == nil {
		return nil
	}
	err := i.server.Close()
	i.server = nil
	return err
}

// answer makes a page of what has no parameters.
func answer(action func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := action(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

// put takes the image of an OCI layout, and returns its name.
func (i *images) put(directory string) (string, error) {
	index, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		return "", err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", err
	}
	if len(manifest.Manifests) != 1 {
		return "", fmt.Errorf("%s: %d images: a layout with one image", directory, len(manifest.Manifests))
	}
	digest := manifest.Manifests[0].Digest
	image, err := index.Image(digest)
	if err != nil {
		return "", err
	}
	place, err := name.NewDigest(fmt.Sprintf("%s/lanekeeper@%s", i.address, digest), name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(place, image); err != nil {
		return "", fmt.Errorf("cannot put the image into the registry: %w", err)
	}
	return "oci://" + place.String(), nil
}
