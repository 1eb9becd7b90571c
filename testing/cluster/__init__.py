"""A real Kubernetes cluster for tests, whichever provider a machine allows.

``python -m testing.cluster up`` starts one by hand; tests use the fixtures of ``tests/e2e/conftest.py``.
"""
