"""Values on their way through the operator, held so that nothing outside this folder can look at them."""

from __future__ import annotations

from collections.abc import Mapping


class Values:
    """The values of one attempt, or one entry, by the key under which they are delivered.

    It shows the number of values and nothing else, even when printed. An import contract keeps
    :func:`opened` to the modules of this folder.
    """

    __slots__ = ("_by_key",)

    def __init__(self, by_key: Mapping[str, bytes]) -> None:
        self._by_key = dict(by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def __repr__(self) -> str:
        return f"Values({len(self)})"

    def __reduce__(self) -> str:
        raise TypeError("values are not to be copied or stored")


def opened(values: Values) -> Mapping[str, bytes]:
    """The values themselves."""
    return values._by_key  # noqa: SLF001 -- the one place that may
