"""A real Kubernetes cluster for tests, whichever provider a machine allows.

``python -m tests.e2e.cluster up`` starts one by hand; tests use the fixtures of ``tests/e2e/conftest.py``.
"""
