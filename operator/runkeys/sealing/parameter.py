"""Sealed parameters of pods: a value, and the time until which a pod may bring it. Both are sealed together.

A pod that is created later gets nothing. It is the pod's creation that counts and not the moment when its node asks:
so the same pod can be given the value again after its node has started anew.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runkeys.sealing.text import MalformedError, PodParameter, PublicKey, seal

_TIME_BYTES = 8
_EPOCH = datetime.fromtimestamp(0, UTC)


def seal_parameter(value: bytes, place: PodParameter, expires: datetime, key: PublicKey) -> str:
    """Seal ``value`` for pods of ``place`` that are created before ``expires``. Return the text.

    :raises SealError: the value is too large.
    """
    # Whole seconds: a timestamp in floating point would round up a time that is far away.
    seconds = (expires - _EPOCH) // timedelta(seconds=1)
    return seal(seconds.to_bytes(_TIME_BYTES, "big") + value, place, key)


def read_parameter(opened: bytes) -> tuple[datetime, bytes]:
    """What was sealed: until when a pod may bring it, and the value.

    :param opened: what the text opens to.
    :raises MalformedError: it was not made by :func:`seal_parameter`.
    """
    seconds = int.from_bytes(opened[:_TIME_BYTES], "big")
    if len(opened) < _TIME_BYTES or seconds > datetime.max.replace(tzinfo=UTC).timestamp():
        raise MalformedError(
            "the parameter does not begin with the time when it expires; seal it with runkeys seal --for-pods"
        )
    return _EPOCH + timedelta(seconds=seconds), opened[_TIME_BYTES:]
