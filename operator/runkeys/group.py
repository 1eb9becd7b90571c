"""Name and version of our API group. Apart from the models, so that a task need not load these to know it."""

from __future__ import annotations

GROUP = "runkeys.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
