"""A real Kubernetes cluster for tests, from a provider that works on this machine.

``python -m testing.cluster up`` starts one by hand; tests use the fixtures of ``tests/e2e/conftest.py``.
"""
