// Package environment has the settings of istiod, which Istio reads from the environment while its
// packages are initialised. Packages are initialised in the order of their import paths: that of this
// one must stay before istio.io.
package environment

import "os"

func init() {
	for name, value := range map[string]string{
		// These two need Istio's own Envoy.
		"PILOT_ENABLE_METADATA_EXCHANGE": "false",
		"PILOT_ENABLE_ALPN_FILTER":       "false",
		// There are no certificates here.
		"ENABLE_CA_SERVER":     "false",
		"PILOT_CERT_PROVIDER":  "none",
		"PILOT_ENABLE_AMBIENT": "false",
		// Where Istio's tests would find what was built from its sources.
		"TARGET_OUT": ".",
		"LOCAL_OUT":  ".",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
}
