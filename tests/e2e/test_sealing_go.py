"""The sealed format against Go's ``crypto/hpke``. Needs no cluster, but Go, as the cluster's programs do."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runkeys.sealing import (
    Context,
    ContextMismatchError,
    Keyring,
    NamespaceEntry,
    PrivateKey,
    key_id_of,
    seal,
)
from testing.cluster.golang import build_module
from tests.unit.sealing import vectors

SOURCE = Path(__file__).parents[1] / "unit" / "sealing_go"
LENGTHS = [0, 1, 255, 256, 257, 512, 513, 4096, 4097, 8192, 8193, 100_000, 512 * 1024]
HERE = NamespaceEntry("team-a", "api-token")
ELSEWHERE = NamespaceEntry("team-b", "api-token")
Ask = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ask() -> Ask:
    """Ask the Go program; all its answers come at once."""
    program = build_module(SOURCE)

    def run(**questions: object) -> dict[str, Any]:
        done = subprocess.run(
            [program], input=json.dumps(questions).encode(), capture_output=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stderr.decode()
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers

    return run


def question(context: Context, **more: object) -> dict[str, object]:
    return {"context": {"kind": context.label, "parts": vectors.parts(context)}, **more}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_go_names_the_suite_and_makes_the_same_keys(ask: Ask) -> None:
    keys = [PrivateKey.from_seed(vector.seed) for vector in vectors.key_vectors()] + [PrivateKey.generate()]
    answers = ask(seeds=[b64(key.seed) for key in keys])
    assert answers["suite"] == [0x647A, 0x0001, 0x0002]
    assert answers["public"] == [key.public.text for key in keys]


def test_go_opens_the_vectors(ask: Ask) -> None:
    opened = vectors.opened()
    answers = ask(
        seeds=[b64(key.seed) for key in vectors.key_vectors()],
        open=[question(vector.context, text=vector.text) for vector in opened],
    )["open"]
    assert [answer["error"] for answer in answers] == [""] * len(opened)
    assert [base64.b64decode(answer["value"] or "") for answer in answers] == [v.value for v in opened]


def test_go_refuses_what_is_to_be_refused(ask: Ask) -> None:
    refused = vectors.refused()
    answers = ask(
        seeds=[b64(key.seed) for key in vectors.key_vectors()],
        open=[question(vector.context, text=vector.text) for vector in refused],
    )["open"]
    words = {
        "ContextMismatchError": "mismatch",
        "MalformedError": "malformed",
        "UnknownKeyError": "unknown key",
    }
    assert [answer["error"].split(":")[0] for answer in answers] == [words[v.error] for v in refused]


def test_go_opens_what_was_just_sealed(ask: Ask) -> None:
    key = PrivateKey.generate()
    values = [os.urandom(length) for length in LENGTHS]
    texts = [seal(value, HERE, key.public) for value in values]
    answers = ask(
        seeds=[b64(key.seed)],
        open=[question(HERE, text=text) for text in texts]
        + [question(ELSEWHERE, text=text) for text in texts],
    )["open"]
    there, elsewhere = answers[: len(texts)], answers[len(texts) :]
    assert [base64.b64decode(answer["value"] or "") for answer in there] == values
    assert [answer["error"] for answer in elsewhere] == ["mismatch"] * len(texts)


def test_what_go_seals_opens(ask: Ask) -> None:
    keyring = Keyring(PrivateKey.generate())
    values = [os.urandom(length) for length in LENGTHS]
    cases: list[tuple[Context, bytes]] = [(HERE, value) for value in values]
    cases += [(vector.context, vector.value) for vector in vectors.opened() if vector.value is not None]
    texts = ask(
        seal=[question(context, public=keyring.public.text, value=b64(value)) for context, value in cases]
    )["seal"]
    assert len(texts) == len(cases)
    for text, (context, value) in zip(texts, cases, strict=True):
        assert key_id_of(text) == keyring.public.key_id
        assert len(text) == len(seal(value, context, keyring.public))
        assert keyring.open(text, context) == value
        with pytest.raises(ContextMismatchError):
            keyring.open(text, ELSEWHERE)
