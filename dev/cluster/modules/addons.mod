module match.example/cluster/addons

go 1.26.0

// One module for both: they share the Kubernetes clients, which are compiled once.
require (
	github.com/kedacore/keda/v2 v2.21.0
	sigs.k8s.io/kwok v0.8.0
)

// With only its Redis scalers: see ../keda_source.py.
replace github.com/kedacore/keda/v2 => ./keda

// From KEDA's own go.mod: Go ignores the replacements of a required module.
replace github.com/nexus-rpc/nexus-proto-annotations v0.1.0 => github.com/nexus-rpc/nexus-proto-annotations v0.1.1-0.20260629224316-835bd8d49cb4
