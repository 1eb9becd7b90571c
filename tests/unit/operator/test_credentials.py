"""Where the API server is and who we are there, from files."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from runkeys_operator.errors import LoginError
from runkeys_operator.kube import credentials
from runkeys_operator.kube.login import Login


def config(**changes: Any) -> dict[str, Any]:
    return {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "c", "user": "v"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "token-u"}}, {"name": "v", "user": {"token": "token-v"}}],
        **changes,
    }


def user(**fields: Any) -> dict[str, Any]:
    return config(users=[{"name": "u", "user": fields}])


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def token(access: credentials.Access) -> str:
    assert access.token is not None
    reading = access.token()

    async def read() -> str:
        return await reading

    return asyncio.run(read())


def test_the_current_context_or_another(tmp_path: Path) -> None:
    file = write(tmp_path / "config", config())
    assert credentials.load([file], None).server == "http://127.0.0.1:1"
    assert token(credentials.load([file], None)) == "token-u"
    assert token(credentials.load([file], "two")) == "token-v"


def test_of_several_files_the_first_word_counts(tmp_path: Path) -> None:
    first = write(tmp_path / "1", {"users": [{"name": "u", "user": {"token": "first"}}]})
    second = write(tmp_path / "2", config())
    assert token(credentials.load([first, second], None)) == "first"


def test_files_are_found_beside_the_one_that_names_them(tmp_path: Path) -> None:
    file = write(tmp_path / "deep" / "config", user(tokenFile="my-token"))
    (tmp_path / "deep" / "my-token").write_text("from-file\n")
    access = credentials.load([file], None)
    assert token(access) == "from-file"
    (tmp_path / "deep" / "my-token").write_text("rotated")
    assert token(access) == "rotated"


@pytest.mark.parametrize("inline", [True, False])
async def test_a_client_certificate(tmp_path: Path, inline: bool) -> None:
    ca = trustme.CA()
    client = ca.issue_cert("operator@example.org")
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    parts = {
        "certificate-authority": ca.cert_pem.bytes(),
        "client-certificate": chain,
        "client-key": client.private_key_pem.bytes(),
    }
    named: dict[str, str] = {}
    for name, pem in parts.items():
        if inline:
            named[f"{name}-data"] = base64.b64encode(pem).decode()
        else:
            (tmp_path / name).write_bytes(pem)
            named[name] = name
    authority = {name: value for name, value in named.items() if name.startswith("certificate-authority")}
    identity = {name: value for name, value in named.items() if name.startswith("client")}

    trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusting.verify_mode = ssl.CERT_REQUIRED
    ca.issue_cert("127.0.0.1").configure_cert(trusting)
    ca.configure_trust(trusting)
    greeted: list[Any] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        greeted.append(writer.get_extra_info("peercert")["subjectAltName"])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=trusting)
    port = server.sockets[0].getsockname()[1]
    cluster = {"server": f"https://127.0.0.1:{port}", **authority}
    content = {**user(**identity), "clusters": [{"name": "c", "cluster": cluster}]}
    file = write(tmp_path / "config", content)
    session = Login(credentials.find(str(file), None))
    async with session.current().http.get(session.current().server) as response:
        assert response.status == 200
    assert greeted == [(("email", "operator@example.org"),)]
    await session.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("content", "context", "complaint"),
    [
        (config(), "three", "there is no context 'three' (there is: one, two)"),
        (config(**{"current-context": None}), None, "there is no current-context; give --context"),
        (config(clusters=[]), None, "there is no cluster 'c' (there is: none)"),
        (config(clusters=[{"name": "c", "cluster": {}}]), None, "has no server"),
        (user(**{"as": "root"}), None, "user 'u' uses as, which is not supported here"),
        (user(username="x", password="y"), None, "uses password, username, which is not supported here"),
        (
            config(
                clusters=[{"name": "c", "cluster": {"server": "https://x", "certificate-authority": "none"}}]
            ),
            None,
            "the certificates of https://x cannot be read",
        ),
        (
            config(
                clusters=[
                    {"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "%"}}
                ]
            ),
            None,
            "the certificates of https://x cannot be read",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: Any, context: str | None, complaint: str) -> None:
    file = write(tmp_path / "config", content)
    with pytest.raises(LoginError) as wrong:
        credentials.load([file], context)
    assert complaint in str(wrong.value)


def test_a_file_that_is_no_yaml_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("users:\n- token: [canary\n")
    with pytest.raises(LoginError, match="not a YAML file") as wrong:
        credentials.load([tmp_path / "config"], None)
    assert "canary" not in str(wrong.value)


def test_access_does_not_show_the_token(tmp_path: Path) -> None:
    file = write(tmp_path / "config", config())
    assert "token-u" not in repr(credentials.load([file], None))


def test_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(LoginError, match="no cluster"):
        credentials.find(None, None)
    default = write(tmp_path / ".kube" / "config", config())
    assert credentials.paths(None) == [default]
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert credentials.paths(None) == [Path("/a"), Path("/b")]
    assert credentials.paths("/c") == [Path("/c")]
