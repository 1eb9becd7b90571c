// The definitions of Argo CD's and Flux's kinds lie in the modules of their controllers; nothing of them is built.
module runkeys.dev/tests/schemas

go 1.26.0

require (
	github.com/argoproj/argo-cd/v3 v3.4.0
	github.com/fluxcd/kustomize-controller v1.9.0
)
