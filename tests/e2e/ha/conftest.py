"""Fixtures: a team with two operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import Cluster
from tests.e2e.ha.pair import Pair, PairMaker, pair_in


@pytest.fixture
def new_pair(
    node: Cluster,
    crds: None,  # noqa: ARG001 -- the kinds have to be known first
    new_namespace: Callable[[], str],
    tmp_path: Path,
) -> Iterator[PairMaker]:
    """Make pairs with namespaces of their own, which are not started yet."""
    with ExitStack() as ends:

        def make(**options: Any) -> Pair:
            return ends.enter_context(pair_in(node, new_namespace(), tmp_path, **options))

        yield make
