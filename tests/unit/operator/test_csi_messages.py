"""Messages of the provider protocol, compared with protobuf's own encoder and decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys_operator.stores import csi_messages
from runkeys_operator.stores.csi_messages import File, MessageError, MountAnswer, VersionAnswer
from tests.unit.operator.csi_protocol import CLASSES, message

TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
FILES = st.lists(
    st.tuples(TEXTS, st.integers(0, 2**31 - 1), st.binary(max_size=300)),
    max_size=5,
)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_request_is_read_by_protobuf_as_it_was_meant(
    attributes: str, secrets: str, target: str, permission: str
) -> None:
    found = csi_messages.mount_request(attributes, secrets=secrets, target=target, permission=permission)
    fields = {"attributes": attributes, "secrets": secrets, "target_path": target, "permission": permission}
    assert found == message("MountRequest", **fields).SerializeToString(deterministic=True)


def test_the_request_for_the_version() -> None:
    expected = message("VersionRequest", version="v1alpha1")
    assert csi_messages.version_request() == expected.SerializeToString(deterministic=True)


@given(FILES, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=3))
def test_an_answer_of_protobuf_is_read(
    files: list[tuple[str, int, bytes]], code: str, versions: list[tuple[str, str]]
) -> None:
    made = message(
        "MountResponse",
        files=[CLASSES["File"](path=path, mode=mode, contents=content) for path, mode, content in files],
        error=CLASSES["Error"](code=code),
        object_version=[CLASSES["ObjectVersion"](id=name, version=version) for name, version in versions],
    )
    expected = MountAnswer(tuple(File(path, content) for path, _, content in files), code)
    assert csi_messages.mount_answer(made.SerializeToString()) == expected


@given(TEXTS, TEXTS, TEXTS)
def test_the_answer_to_the_request_for_the_version(version: str, name: str, release: str) -> None:
    made = message("VersionResponse", version=version, runtime_name=name, runtime_version=release)
    assert csi_messages.version_answer(made.SerializeToString()) == VersionAnswer(version, name, release)


def test_fields_that_this_version_does_not_know_are_skipped() -> None:
    files = bytes(message("File", path="a", mode=420, contents=b"x").SerializeToString())
    unknown = b"\x79" + b"8" * 8 + b"\x7d" + b"4" * 4 + b"\x70\xac\x02" + b"\x82\x01\x03abc"
    found = csi_messages.mount_answer(unknown + b"\x1a" + bytes([len(files)]) + files + unknown)
    assert found == MountAnswer((File("a", b"x"),))


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused_and_never_shown(data: bytes) -> None:
    for read in (csi_messages.mount_answer, csi_messages.version_answer):
        told = ""
        try:
            read(data)
        except MessageError as error:
            told = str(error)
        assert told in {
            "",
            "a field of a kind that does not exist",
            "a field that is cut off",
            "a number that does not end",
            "a number where bytes belong",
            "a text that is not UTF-8",
        }


@pytest.mark.parametrize("cut", range(1, 12))
def test_an_answer_that_is_cut_off_is_refused(cut: int) -> None:
    made = message("MountResponse", files=[CLASSES["File"](path="token", contents=b"value")])
    with pytest.raises(MessageError):
        csi_messages.mount_answer(made.SerializeToString()[:-cut])


def test_a_value_is_not_printed() -> None:
    assert "canary" not in repr(MountAnswer((File("a", b"canary"),)))
