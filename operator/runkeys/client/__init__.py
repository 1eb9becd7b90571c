"""Runs from Python: start runs, wait for them, read their logs, and see how long their secrets were in the cluster.

:class:`Client` talks to the API server with the rights of a kubeconfig, or of the pod that it runs in.
"""

from runkeys.client.client import Client
from runkeys.client.exposure import Exposure, exposures_of, released
from runkeys.client.http import MERGE_PATCH as MERGE_PATCH
from runkeys.client.logs import LogLine

__all__ = ["Client", "Exposure", "LogLine", "exposures_of", "released"]
