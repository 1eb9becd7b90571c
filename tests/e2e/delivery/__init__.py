"""Sealed delivery: values that are never in etcd."""
