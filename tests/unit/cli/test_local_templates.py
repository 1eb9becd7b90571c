"""Local runs with the SecretBindings beside them: entries that are made of others."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from runkeys.local import LocalRun
from runkeys.problems import Invalid, NotFound
from tests.unit.cli.local_runs import TOKEN, manifest, task
from tests.unit.cli.terminal import Terminal

USER = "reader-of-all"
SPECIAL = f"p@:/ {TOKEN}"


def binding(*entries: dict[str, Any], name: str = "keys", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "SecretBinding",
        "metadata": {"name": name},
        "spec": {"secrets": list(entries), "access": [{"runSelector": {}}], **spec},
    }


URL = {"name": "url", "template": "pg://{{ db-user | url }}:{{ db-password | url }}@db/app"}
DOCKER = {
    "name": "docker",
    "template": '{"auths": {"r": {"username": {{ db-user | json }}, "auth": "{{ db-user:db-password | base64 }}"}}}',
}
NETRC = {"name": "netrc", "template": "machine db login {{ db-user }} password {{ db-password }}\n"}
PARTS = (
    {"name": "db-user", "secretKeyRef": {"name": "db", "key": "user"}},
    {"name": "db-password", "sealed": "rk1.x"},
)
KEYS = binding(URL, DOCKER, NETRC, *PARTS)
VALUES = {"SECRET_DB_USER": USER, "SECRET_DB_PASSWORD": SPECIAL}
ASKED = [
    {"name": "url", "secret": "url"},
    {"name": "d", "secret": "docker", "file": "config.json"},
    {"name": "n", "secret": "netrc", "file": "netrc"},
]


def lines_of(
    code: str, bindings: list[dict[str, Any]], values: dict[str, str], asked: list[Any] = ASKED
) -> list[str]:
    lines: list[str] = []
    local = LocalRun(
        manifest(task(code=code, secrets=asked)),
        values,
        bindings=bindings,
        print_line=lambda _task, line: lines.append(line),
    )
    assert local.execute().status.phase == "Succeeded", lines
    return lines


def test_templates_are_put_together_and_their_parts_are_not_delivered() -> None:
    code = (
        "import os, json, base64, urllib.parse\n"
        "url = urllib.parse.urlsplit(os.environ['SECRET_URL'])\n"
        f"assert urllib.parse.unquote(url.password) == {SPECIAL!r}\n"
        "docker = json.load(open('/var/runtime/secrets/config.json'))['auths']['r']\n"
        f"assert docker['username'] == {USER!r}\n"
        f"assert base64.b64decode(docker['auth']).decode() == {USER + ':' + SPECIAL!r}\n"
        f"assert open('/var/runtime/secrets/netrc').read() == {NETRC['template']!r}"
        f".replace('{{{{ db-user }}}}', {USER!r}).replace('{{{{ db-password }}}}', {SPECIAL!r})\n"
        "print(sorted(x for x in os.environ if x.startswith('SECRET_')), sorted(os.listdir('/var/runtime/secrets')))\n"
    )
    assert lines_of(code, [KEYS], VALUES) == ["['SECRET_URL'] ['config.json', 'netrc']"]


def test_the_result_and_its_parts_are_masked() -> None:
    code = (
        "import os, urllib.parse, base64\n"
        "url = os.environ['SECRET_URL']\n"
        "parts = urllib.parse.urlsplit(url)\n"
        "print(url)\n"
        "print(parts.username, parts.password)\n"
        "print(urllib.parse.unquote(parts.password), urllib.parse.unquote(parts.username).encode().hex())\n"
        "print(base64.b64encode(urllib.parse.unquote(parts.password).encode()))\n"
        "print(open('/var/runtime/secrets/config.json').read())\n"
        "print(open('/var/runtime/secrets/netrc').read())\n"
    )
    printed = "\n".join(lines_of(code, [KEYS], VALUES))
    for value in (USER, USER.encode().hex(), TOKEN, base64.b64encode(SPECIAL.encode()).decode()):
        assert value not in printed


def test_control_without_the_binding_a_part_is_not_known_and_not_masked() -> None:
    lines = lines_of(f"print({USER!r})", [], {"SECRET_URL": "x"}, [{"name": "url", "secret": "url"}])
    assert lines == [USER]


def test_a_whole_value_that_is_given_counts() -> None:
    code = "import os; assert os.environ['SECRET_URL'] == 'whole'; print('ok')"
    assert lines_of(code, [KEYS], {"SECRET_URL": "whole"}, [{"name": "url", "secret": "url"}]) == ["ok"]


@pytest.mark.parametrize(
    ("bindings", "values", "error", "said"),
    [
        (
            [KEYS],
            {},
            NotFound,
            "entry 'db-user' of SecretBinding keys, for the template of 'url': SECRET_DB_USER=…",
        ),
        (
            [binding({"name": "url", "template": "{{ nothing }}"}, *PARTS)],
            VALUES,
            Invalid,
            "spec.secrets[0].template, entry 'url': it refers to 'nothing', and the binding has no such entry",
        ),
        ([binding({"name": "url", "template": "x"}, *PARTS)], VALUES, Invalid, "refuse SecretBinding keys"),
        ([KEYS, KEYS, binding(*PARTS)], VALUES, Invalid, "SecretBinding keys is there twice"),
        ([binding(*PARTS)], VALUES, Invalid, "no secret 'url' in keys"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    bindings: list[dict[str, Any]], values: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as found:
        LocalRun(manifest(task(secrets=[{"name": "url", "secret": "url"}])), values, bindings=bindings)
    assert said in str(found.value)
    assert TOKEN not in str(found.value)


def test_another_bindings_file_means_nothing() -> None:
    others = [
        binding({"name": "url"}, name="other"),
        {**KEYS, "metadata": {"name": "keys", "namespace": "elsewhere"}},
    ]
    code = "import os; assert os.environ['SECRET_URL'] == 'whole'; print('ok')"
    assert lines_of(code, others, {"SECRET_URL": "whole"}, [{"name": "url", "secret": "url"}]) == ["ok"]


@pytest.mark.parametrize("where", ["file", "folder", "option"])
def test_the_command_finds_bindings_beside_the_run(terminal: Terminal, where: str) -> None:
    folder = terminal.folder / "flow"
    folder.mkdir()
    code = f"import os; assert os.environ['SECRET_URL'].startswith('pg://{USER}:p%40'); print(os.environ['SECRET_URL'])"
    run, found = (json.dumps(item) for item in (manifest(task(code=code, secrets=ASKED[:1])), KEYS))
    (folder / "run.yaml").write_text(f"{run}\n---\n{found}\n" if where == "file" else run)
    (folder / "binding.yaml").write_text(found)
    (terminal.folder / ".env").write_text(f"SECRET_DB_USER={USER}\nSECRET_DB_PASSWORD='{SPECIAL}'\n")
    path = "flow" if where == "folder" else "flow/run.yaml"
    words = ("--binding-file", "flow/binding.yaml") if where == "option" else ()
    done = terminal.run("run", "--local", "-f", path, "--env-file", ".env", *words)
    assert done.code == 0, done
    assert TOKEN not in done.out + done.err
    assert USER not in done.out + done.err


def test_a_value_of_a_clouds_store_has_to_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "https://bao.example:8200")
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    cloud = binding({"name": "api", "value": {"store": "aws", "path": "prod/api"}})
    asked = [{"name": "api", "secret": "api"}]
    with pytest.raises(Invalid, match="is in SecretStore aws, which is no Vault or OpenBao server") as raised:
        LocalRun(manifest(task(secrets=asked)), {}, bindings=[cloud])
    assert "give it with --env-file: SECRET_API=" in str(raised.value)
    code = "import os; print(len(os.environ['SECRET_API']))"
    assert lines_of(code, [cloud], {"SECRET_API": SPECIAL}, asked) == [str(len(SPECIAL))]
