"""Which cluster is used, and what is said if there is none or something else answers."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from testing.namespace import canary
from tests.unit.cli.terminal import Terminal

NOWHERE = "http://127.0.0.1:9"


def kubeconfig(path: Path, current: str = "", server: str = NOWHERE, **contexts: str | None) -> str:
    """A kubeconfig with these contexts and their namespaces. Each context has a cluster of its own port."""
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": []}
    document["users"] = [{"name": "u", "user": {"token": "none"}}]
    for name, namespace in contexts.items():
        document["clusters"].append({"name": f"c-{name}", "cluster": {"server": f"{server}/{name}"}})
        context = {"cluster": f"c-{name}", "user": "u", **({"namespace": namespace} if namespace else {})}
        document["contexts"].append({"name": name, "context": context})
    if current:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return str(path)


def used(terminal: Terminal, *words: str, **more: str) -> dict[str, str]:
    return dict(json.loads(terminal.ok("config", "show", "-o", "json", *words, **more))["used"])


def of_sdk(terminal: Terminal, call: str, **more: str) -> str:
    """What the SDK uses, as a program of the user sees it."""
    from tests.unit.sdk.conftest import Service

    code = f"from runkeys import Client, config; print({call}.server)"
    ended = Service(terminal.folder).python(
        "-c", code, HOME=str(terminal.folder), RUNKEYS_CONFIG_DIR=str(terminal.folder / "config"), **more
    )
    assert ended.code == 0, ended.err
    return ended.out.strip()


def test_command_line_and_sdk_go_by_one_rule(terminal: Terminal) -> None:
    path = kubeconfig(terminal.folder / "k", "dev", dev="d", prod="p")
    other = kubeconfig(terminal.folder / "other", "dev", dev=None)
    env = {"KUBECONFIG": path}
    assert used(terminal, **env)["cluster"] == of_sdk(terminal, "Client()", **env) == f"{NOWHERE}/dev"
    (terminal.folder / "config").mkdir()
    (terminal.folder / "config" / "config.toml").write_text(
        'default = "lab"\n[configs.lab]\ncontext = "prod"\nnamespace = "team-a"\noperator_namespace = "keys"\n'
    )
    found = used(terminal, **env)
    assert found == {
        "cluster": f"{NOWHERE}/prod",
        "chosen by": f"configs.lab of {terminal.folder}/config/config.toml",
        "context": "prod",
        "namespace": "team-a",
        "operator namespace": "keys",
    }
    for call in ("Client()", "config.resolve().client()", "config.choose().client()"):
        assert of_sdk(terminal, call, **env) == f"{NOWHERE}/prod", call
    assert used(terminal, "--context", "dev", **env)["cluster"] == f"{NOWHERE}/dev"
    assert used(terminal, "--context", "lab", **env)["cluster"] == f"{NOWHERE}/prod"
    assert used(terminal, "-n", "mine", **env)["namespace"] == "mine"
    assert used(terminal, "--kubeconfig", other, **env)["cluster"] == f"{NOWHERE}/dev"
    row = terminal.run("doctor", **env).out.splitlines()[1]
    assert row.split()[:2] == ["configuration", "ok"]
    assert "configs.lab" in row
    assert "--kube-context prod" in terminal.ok("install", "--dry-run", "--chart", "c", **env)


def test_of_several_files_the_first_current_context_counts_as_for_kubectl(terminal: Terminal) -> None:
    first = kubeconfig(terminal.folder / "a", "one", one=None)
    second = kubeconfig(terminal.folder / "b", "two", two="t")
    env = {"KUBECONFIG": f"{first}:{second}:{terminal.folder}/absent"}
    assert used(terminal, **env)["cluster"] == f"{NOWHERE}/one"
    assert used(terminal, "--context", "two", **env)["namespace"] == "t"


def test_a_kubeconfig_without_a_current_context_works_when_one_is_named(terminal: Terminal) -> None:
    env = {"KUBECONFIG": kubeconfig(terminal.folder / "k", dev="d", prod=None)}
    assert used(terminal, "--context", "dev", **env)["namespace"] == "d"
    done = terminal.run("status", **env)
    assert done.code == 6
    assert "has no current context; choose one with --context; there are: dev, prod" in done.err
    done = terminal.run("status", "--context", "nope", **env)
    assert done.code == 3
    assert "there is no configuration 'nope'; there are: dev, prod" in done.err
    done = terminal.run("status", "--kubeconfig", env["KUBECONFIG"], "--context", "nope")
    assert (done.code, "no context 'nope'; there are: dev, prod" in done.err) == (3, True)


def test_no_kubeconfig_at_all_is_said_and_doctor_prints_its_rows(terminal: Terminal) -> None:
    place = f"{terminal.folder}/.kube/config"
    done = terminal.run("status")
    assert done.code == 6
    assert f"there is no kubeconfig: {place} does not exist" in done.err
    done = terminal.run("doctor", "-o", "json")
    assert done.code == 6
    rows = {item["check"]: item["state"] for item in json.loads(done.out)["findings"]}
    assert rows.pop("configuration") == "problem"
    assert set(rows) >= {"cluster", "kinds", "operator", "keys", "policies", "rights", "secrets"}
    assert set(rows.values()) == {"unknown"}
    assert place in used(terminal)["problem"]
    done = terminal.run("status", "--kubeconfig", "nofile")
    assert (done.code, done.err) == (3, "Error: there is no file nofile\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [{canary}\nb", "since it is not YAML"),
        ("{canary}", "it needs a list of contexts"),
        ("[{canary}]", "it needs a list of contexts"),
        ("contexts: {a: {canary}}", "it needs a list of contexts"),
        ("contexts: [{canary}]", "it needs a list of contexts"),
        ("contexts: [{name: a, context: {canary}}]", "it needs a list of contexts"),
        ("", "it needs a list of contexts"),
        ("current-context: a\ncontexts: [{name: a}]\nx: {canary}", "k, context a: "),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: 7\n",
            "k, context a: ",
        ),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {certificate-authority-data: '{canary}!'}}]\n",
            "k, context a: ",
        ),
    ],
)
def test_a_kubeconfig_that_is_none_is_named_and_not_shown(terminal: Terminal, text: str, says: str) -> None:
    value = canary()
    (terminal.folder / "k").write_text(text.replace("{canary}", value))
    done = terminal.run("status", KUBECONFIG=f"{terminal.folder}/k")
    assert done.code in (5, 6), done
    assert says in done.err
    assert f"{terminal.folder}/k" in done.err
    assert "bug in runkeys" not in done.err
    assert value not in done.out + done.err


PAGE = b"<!doctype html><title>Log in</title>"


@pytest.fixture
def page() -> Iterator[Callable[[str, bytes], str]]:
    """A server that answers everything with one page: ``page("text/html", b"…")`` gives its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(kind: str, body: bytes) -> str:
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("text/html; charset=utf-8", PAGE, "answered with a web page (200)"),
        ("text/plain", b"hello", "answered something else than JSON"),
        ("application/json", b"[1]", "answered something else than JSON"),
        ("application/json", b"", "answered something else than JSON"),
    ],
)
@pytest.mark.parametrize(
    "words", [("status",), ("secret", "list"), ("logs", "a"), ("watch", "a"), ("kv", "list")]
)
def test_something_else_answers(
    terminal: Terminal,
    page: Callable[[str, bytes], str],
    kind: str,
    body: bytes,
    says: str,
    words: tuple[str, ...],
) -> None:
    server = page(kind, body)
    env = {"KUBECONFIG": kubeconfig(terminal.folder / "k", "a", server, a=None)}
    done = terminal.run(*words, **env)
    assert (done.code, done.out) == (6, "")
    assert f"{server}/a {says}" in done.err


def test_doctor_says_that_something_else_answers(
    terminal: Terminal, page: Callable[[str, bytes], str]
) -> None:
    env = {"KUBECONFIG": kubeconfig(terminal.folder / "k", "a", page("text/html", PAGE), a=None)}
    done = terminal.run("doctor", **env)
    assert done.code == 6
    assert "a login page or a proxy" in done.out
    assert "policies" in done.out


@pytest.fixture
def tls() -> Iterator[tuple[str, trustme.CA]]:
    """A server with a certificate of a CA that nobody knows."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", ca
    server.shutdown()
    server.server_close()


def test_tls_that_fails_is_said_as_what_it_is(
    terminal: Terminal, tls: tuple[str, trustme.CA], page: Callable[[str, bytes], str]
) -> None:
    server, ca = tls
    path = terminal.folder / "k"
    kubeconfig(path, "a", server, a=None)
    done = terminal.run("status", KUBECONFIG=str(path))
    assert done.code == 6
    assert f"the certificate of {server}/a is not trusted: " in done.err
    document = yaml.safe_load(path.read_text())
    pem = base64.b64encode(ca.cert_pem.bytes()).decode()
    document["clusters"][0]["cluster"]["certificate-authority-data"] = pem
    path.write_text(yaml.safe_dump(document))
    assert "is not trusted" not in terminal.run("status", KUBECONFIG=str(path)).err
    plain = page("text/html", PAGE).replace("http://", "https://")
    kubeconfig(path, "a", plain, a=None)
    done = terminal.run("status", KUBECONFIG=str(path))
    assert done.code == 6
    assert f"TLS with {plain}/a failed (WRONG_VERSION_NUMBER)" in done.err
