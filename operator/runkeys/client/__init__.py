"""Runs, bindings and logs from Python, and what a laptop keeps for them."""

from runkeys.client.client import Client as Client
from runkeys.client.exposure import released as released
from runkeys.client.http import MERGE_PATCH as MERGE_PATCH
