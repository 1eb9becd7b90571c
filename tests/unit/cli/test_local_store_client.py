"""The client of a user's store: what it sends, and to whom. `tests/e2e/stores/test_local.py` has a real OpenBao."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runkeys.local import LocalRun
from runkeys.local.stores import UserStore
from runkeys.problems import Denied, Invalid, NotFound, Unreachable
from tests.unit.cli.local_runs import TOKEN, manifest, task

LEASED = {"store": "bao", "role": "r", "path": "database/creds/ro"}
KEYS = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "SecretBinding",
    "metadata": {"name": "keys"},
    "spec": {
        "secrets": [
            {"name": "user", "lease": {**LEASED, "field": "username"}},
            {"name": "password", "lease": {**LEASED, "field": "password"}},
            {"name": "api", "value": {"store": "bao", "role": "r", "path": "kv/data/api", "field": "token"}},
            {"name": "url", "template": "pg://{{ user }}:{{ password | url }}@db/{{ api }}"},
        ],
        "access": [{"runSelector": {}}],
    },
}


class Answers:
    """A server that gives fixed answers, by method and path, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                what = f"{self.command} {self.path.removeprefix('/v1/')}"
                answers.asked.append((what, self.headers.get("X-Vault-Token", "")))
                status, body = answers.answers.get(what, (404, {"errors": []}))
                content = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", str(body))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def calls(self) -> list[str]:
        return [what for what, _ in self.asked]


@pytest.fixture
def server() -> Iterator[Answers]:
    found = Answers()
    yield found
    found.close()


@pytest.fixture
def user(server: Answers, tmp_path: Path) -> UserStore:
    return UserStore({"VAULT_ADDR": server.address, "VAULT_TOKEN": "of-the-user"}, tmp_path)


def secret(lease: str = "", **data: Any) -> tuple[int, Any]:
    return 200, {"lease_id": lease, "lease_duration": 60 if lease else 0, "data": data}


def test_kv_of_version_2_and_another_answer_of_that_shape(server: Answers, user: UserStore) -> None:
    about = {"version": 1, "created_time": "x"}
    server.answers["GET kv/data/a"] = secret(data={"token": "x"}, metadata=about)
    assert user.read("kv/data/a", "it").fields == {"token": "x"}
    server.answers["GET kv1/a"] = secret(data={"token": "x"}, metadata="mine")
    assert user.read("kv1/a", "it").fields == {"data": {"token": "x"}, "metadata": "mine"}
    assert {token for _, token in server.asked} == {"of-the-user"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((403, {"errors": ["no " + TOKEN]}), Denied),
        ((404, {"errors": [TOKEN]}), NotFound),
        ((503, {"errors": [TOKEN]}), Unreachable),
        ((500, {"errors": [TOKEN]}), Unreachable),
        ((400, {"errors": [TOKEN]}), Invalid),
        ((200, [TOKEN]), Unreachable),
        ((200, {"data": None}), Invalid),
        ((200, {"data": {"a": TOKEN * 100_000}}), Invalid),
    ],
)
def test_what_the_store_says_is_never_repeated(
    server: Answers, user: UserStore, answer: tuple[int, Any], error: type[Exception]
) -> None:
    server.answers["GET kv/a"] = answer
    with pytest.raises(error) as found:
        user.read("kv/a", "entry 'x'")
    assert TOKEN not in str(found.value)
    assert "of-the-user" not in str(found.value)


def test_a_redirect_does_not_get_the_token(server: Answers, user: UserStore) -> None:
    other = Answers()
    try:
        server.answers["GET kv/a"] = (307, f"{other.address}/v1/kv/a")
        with pytest.raises(Unreachable, match="redirect"):
            user.read("kv/a", "it")
        assert other.asked == []
    finally:
        other.close()


def test_a_lease_with_a_token_of_its_own(server: Answers, user: UserStore) -> None:
    server.answers |= {
        "POST auth/token/create": (200, {"auth": {"client_token": "of-the-lease"}}),
        "GET database/creds/ro": secret("database/creds/ro/1", username="u"),
        "POST auth/token/revoke-self": (204, None),
        "PUT sys/leases/lookup": (400, {"errors": ["invalid lease"]}),
    }
    answer = user.read("database/creds/ro", "it", leased=True, longest=timedelta(seconds=9))
    assert answer.lease is not None
    assert "of-the-lease" not in repr(answer)
    assert user.revoke(answer.lease) == ""
    assert server.asked == [
        ("POST auth/token/create", "of-the-user"),
        ("GET database/creds/ro", "of-the-lease"),
        ("POST auth/token/revoke-self", "of-the-lease"),
        ("PUT sys/leases/lookup", "of-the-user"),
    ]


def test_a_token_that_read_nothing_is_revoked(server: Answers, user: UserStore) -> None:
    server.answers |= {
        "POST auth/token/create": (200, {"auth": {"client_token": "of-the-lease"}}),
        "POST auth/token/revoke-self": (204, None),
    }
    with pytest.raises(NotFound):
        user.read("database/creds/ro", "it", leased=True)
    assert server.asked[-1] == ("POST auth/token/revoke-self", "of-the-lease")


@pytest.mark.parametrize(
    ("revoke", "lookup", "said"),
    [
        ((403, {}), (200, {}), "your login needs the capability update on sys/leases/revoke"),
        ((204, None), (403, {}), "does not say whether it is gone (403); your login needs"),
        ((503, {}), (200, {}), "is sealed, or away"),
    ],
)
def test_what_is_not_known_to_be_revoked_is_said(
    server: Answers, user: UserStore, revoke: tuple[int, Any], lookup: tuple[int, Any], said: str
) -> None:
    server.answers |= {
        "POST auth/token/create": (403, {"errors": []}),
        "GET database/creds/ro": secret("database/creds/ro/1", username="u"),
        "PUT sys/leases/revoke": revoke,
        "PUT sys/leases/lookup": lookup,
    }
    answer = user.read("database/creds/ro", "it", leased=True)
    assert answer.lease is not None
    assert said in user.revoke(answer.lease)


@pytest.fixture
def leasing(server: Answers, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """A server with a value and leases, and the user's shell."""
    monkeypatch.setenv("VAULT_ADDR", server.address)
    monkeypatch.setenv("VAULT_TOKEN", "of-the-user")
    server.answers |= {
        "GET kv/data/api": secret(data={"token": "app"}, metadata={"version": 1, "created_time": "x"}),
        "GET database/creds/ro": secret("database/creds/ro/1", username="user-of-it", password=f"p/{TOKEN}"),
        "PUT sys/leases/revoke": (204, None),
        "PUT sys/leases/lookup": (400, {}),
    }
    return server


ASKED = [{"name": "u", "secret": "url", "env": "DB"}, {"name": "w", "secret": "password", "file": "w"}]


def run(code: str, **fields: Any) -> tuple[LocalRun, list[str], str | None]:
    lines: list[str] = []
    made = LocalRun(
        manifest(task(code=code, secrets=ASKED, **fields)),
        {},
        bindings=[KEYS],
        print_line=lambda _, line: lines.append(line),
    )
    return made, lines, made.execute().status.phase


def test_one_lease_for_each_attempt_and_it_is_revoked_at_its_end(leasing: Answers) -> None:
    code = "import os; print(os.environ['DB'], open('/var/runtime/secrets/w').read()); raise SystemExit(1)"
    made, lines, phase = run(code, backoffLimit=1)
    assert phase == "Failed"
    once = [
        "POST auth/token/create",
        "GET database/creds/ro",
        "PUT sys/leases/revoke",
        "PUT sys/leases/lookup",
    ]
    assert leasing.calls == ["GET kv/data/api", *once, *once]
    assert made.left == []
    assert len(lines) == 2
    assert not any(TOKEN in line or "user-of-it" in line for line in lines)


def test_nothing_is_leased_before_a_task_starts(leasing: Answers) -> None:
    LocalRun(manifest(task(code="pass", secrets=ASKED)), {}, bindings=[KEYS])
    assert leasing.calls == ["GET kv/data/api"]


def test_what_is_left_is_said_after_another_try(leasing: Answers) -> None:
    leasing.answers["PUT sys/leases/revoke"] = (403, {})
    made, _, phase = run("pass")
    assert phase == "Succeeded"
    assert leasing.calls.count("PUT sys/leases/revoke") == 2
    (said,) = made.left
    assert said.startswith("lease database/creds/ro/1 is not revoked, and ends at ")


def test_an_exception_in_the_middle_revokes_too(leasing: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    made = LocalRun(manifest(task(code="import time; time.sleep(60)", secrets=ASKED)), {}, bindings=[KEYS])
    settled = made._settled

    def interrupted() -> bool:
        if "GET database/creds/ro" in leasing.calls:
            raise KeyboardInterrupt
        return settled()

    monkeypatch.setattr(made, "_settled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.execute()
    assert leasing.calls[-2:] == ["PUT sys/leases/revoke", "PUT sys/leases/lookup"]
