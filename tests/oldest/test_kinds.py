"""The kinds on the oldest API server: all that tests/e2e/test_crds.py asks of the newest."""

from __future__ import annotations

from tests.e2e import test_crds

pytestmark = test_crds.pytestmark

# That the API server repeats what it refuses, unless a rule gives a reason of ours: this one does not.
NEWER = {"test_control_a_rule_without_our_reason_repeats_the_value"}

found = {name: item for name, item in vars(test_crds).items() if name.startswith("test_") and callable(item)}
assert found.keys() > NEWER
globals().update({name: item for name, item in found.items() if name not in NEWER})
