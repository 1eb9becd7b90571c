"""Sealed values in the cluster: keys, bindings, what a user brings along."""
