module runkeys.dev/components/prometheus-operator

go 1.26.0

// Only its CRDs are wanted: to have an API server look at what the chart makes for it.
require github.com/prometheus-operator/prometheus-operator v0.85.0
