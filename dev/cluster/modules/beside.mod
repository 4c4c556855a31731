module match.example/cluster/beside

go 1.26.0

// In one module, so that both are built with the same clients of Kubernetes: these are compiled once.
require (
	github.com/kedacore/keda/v2 v2.21.0
	sigs.k8s.io/kwok v0.8.0
)

// With its Redis scalers alone: see ../keda_source.py.
replace github.com/kedacore/keda/v2 => ./keda

// As in KEDA's own go.mod, whose replacements do not reach those who require it.
replace github.com/nexus-rpc/nexus-proto-annotations v0.1.0 => github.com/nexus-rpc/nexus-proto-annotations v0.1.1-0.20260629224316-835bd8d49cb4
