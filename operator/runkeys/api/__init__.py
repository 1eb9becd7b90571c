"""The kinds of ``runkeys.dev/v1alpha1`` as pydantic models: the one source of the CRDs.

``make crds`` writes ``crds/`` from these models (see :mod:`runkeys.api.crd`). The operator and the
command line use the same models to read objects.
"""

from __future__ import annotations

from runkeys.api.binding import AccessRule, BindingEntry, SecretBinding, SecretKeySelector, StoreFieldSelector
from runkeys.api.common import API_VERSION, GROUP, VERSION, LabelSelector
from runkeys.api.conditions import Condition
from runkeys.api.reveal import SecretReveal, SecretRevealSpec, SecretRevealStatus
from runkeys.api.run import Task, TaskSecret, WorkflowRun, WorkflowRunSpec
from runkeys.api.run_status import (
    AttemptStatus,
    Exposure,
    LeaseStatus,
    SealedDelivery,
    TaskStatus,
    WorkflowRunStatus,
)
from runkeys.api.store import SecretStore

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "AccessRule",
    "AttemptStatus",
    "BindingEntry",
    "Condition",
    "Exposure",
    "LabelSelector",
    "LeaseStatus",
    "SealedDelivery",
    "SecretBinding",
    "SecretKeySelector",
    "SecretReveal",
    "SecretRevealSpec",
    "SecretRevealStatus",
    "SecretStore",
    "StoreFieldSelector",
    "Task",
    "TaskSecret",
    "TaskStatus",
    "WorkflowRun",
    "WorkflowRunSpec",
    "WorkflowRunStatus",
]
