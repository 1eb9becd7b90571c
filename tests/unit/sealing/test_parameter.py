"""Sealed parameters of pods: a value with the time until which a pod may bring it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runkeys.sealing import ContextMismatchError, Keyring, MalformedError, PodParameter, PrivateKey
from runkeys.sealing.parameter import read_parameter, seal_parameter

KEY = PrivateKey.generate()
HERE = PodParameter("team-a", "runner")


@example(b"", datetime(4148, 1, 1, microsecond=999993, tzinfo=UTC))
@given(
    st.binary(max_size=300),
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_value_and_time_come_back(value: bytes, expires: datetime) -> None:
    opened = Keyring(KEY).open(seal_parameter(value, HERE, expires, KEY.public), HERE)
    assert read_parameter(opened) == (expires.replace(microsecond=0), value)


@pytest.mark.parametrize("other", [PodParameter("team-b", "runner"), PodParameter("team-a", "default")])
def test_it_opens_for_its_account_only(other: PodParameter) -> None:
    text = seal_parameter(b"canary", HERE, datetime.now(UTC) + timedelta(hours=1), KEY.public)
    with pytest.raises(ContextMismatchError):
        Keyring(KEY).open(text, other)


@given(st.binary(max_size=7))
def test_what_has_no_time_is_no_parameter(opened: bytes) -> None:
    with pytest.raises(MalformedError, match="--for-pods"):
        read_parameter(opened)


@given(st.binary(max_size=40))
def test_a_time_that_no_calendar_has_is_refused(rest: bytes) -> None:
    assert read_parameter(bytes(4) + b"\xff" * 4 + rest)[1] == rest
    with pytest.raises(MalformedError, match="--for-pods"):
        read_parameter(b"\xff" * 8 + rest)
