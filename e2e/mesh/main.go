// Command mesh is an Istio control plane for one machine. It reads the manifests of a cluster as
// they are and serves them to Envoys on loopback addresses, with Istio's own packages. ../README.md
// says what is real and what stands in for a cluster.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	_ "e2e/mesh/environment"
	istiolog "istio.io/istio/pkg/log"
)

const usage = `An Istio control plane for one machine: serves kustomizations to Envoys.

  mesh [flags] DIRECTORY...           serve, and follow changes of the files
  mesh --check [flags] DIRECTORY...   validate and analyse, and end: 0 without any message, else 1

Each DIRECTORY holds a kustomization. A replica of a Deployment is a pod with an address of its own:
127.N.1.1 is the first pod of the first Deployment, and 127.N.101.1 is where its sidecar takes what it
sends. The control plane itself is at 127.N.0.1:

  :15010   ADS, without TLS
  :15014   /status: what runs, as JSON; /debug/...: istiod's own pages
  :15005   with --image, a registry: oci://127.N.0.1:15005/lanekeeper@DIGEST;
           POST to /registry/stop and /registry/start on :15014 takes it away and back

`

// options are the command line.
type options struct {
	directories []string
	network     network
	operator    string
	image       string
	state       string
}

func main() {
	err := run()
	if err == nil {
		return
	}
	if !errors.Is(err, found) {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(1)
}

// found says that a check found something, which it has printed.
var found = errors.New("the manifests are not ready for a cluster")

func run() error {
	flags := flag.NewFlagSet("mesh", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	checkOnly := flags.Bool("check", false, "validate and analyse only")
	number := flags.Uint("network", 73, "the `N` of 127.N.0.0/16, 1 to 254")
	operator := flags.String("operator", "", "an IstioOperator `FILE`, for its meshConfig")
	image := flags.String("image", "", "the filter's image, a `DIRECTORY` with an OCI layout: it is in the registry")
	state := flags.String("state", "", "a `DIRECTORY` for what pods fetch; by default a temporary one")
	_ = flags.Parse(os.Args[1:])
	if flags.NArg() == 0 {
		return errors.New("no DIRECTORY of a kustomization; see mesh --help")
	}
	if *number < 1 || *number > 254 {
		return fmt.Errorf("--network %d: allowed is 1 to 254", *number)
	}
	o := options{
		directories: flags.Args(),
		network:     network{number: byte(*number), deployments: map[string]int{}},
		operator:    *operator,
		image:       *image,
		state:       *state,
	}
	// What goes wrong; the rest is for those who develop Istio.
	quiet := istiolog.DefaultOptions()
	quiet.SetDefaultOutputLevel(istiolog.OverrideScopeName, istiolog.WarnLevel)
	if err := istiolog.Configure(quiet); err != nil {
		return err
	}
	if *checkOnly {
		return check(o)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	return serve(o, stop)
}
