"""`runkeys seal` and `reseal`, as a user types them."""

from __future__ import annotations

import base64
import re
import secrets
import shlex
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from runkeys.client.trusted_keys import TrustedKeys
from runkeys.problems import Denied
from runkeys.sealing import (
    BindingEntry,
    Context,
    Keyring,
    NamespaceEntry,
    PersonalEntry,
    PodParameter,
    PrivateKey,
    seal,
)
from runkeys.sealing.parameter import read_parameter
from tests.unit.cli.terminal import ROOT, Terminal

KEY = PrivateKey.from_seed(b"k" * 32)
OLD = PrivateKey.from_seed(b"o" * 32)
RING = Keyring(KEY, [OLD])
TOKEN = f"canary-{secrets.token_hex(12)}"

FILE = f"""\
# What the team has.
apiVersion: runkeys.dev/v1alpha1
kind: SecretBinding
metadata: {{name: ibm, namespace: team-a}}   # here
spec:
  secrets:
  - name: token      # the token
    value: "{TOKEN}"  # keep this comment
  - {{name: shared, value: '{TOKEN}-it''s', scope: Namespace}}
  - name: three
    value: |
      {TOKEN}
      line 2

  # about four
  - name: four
    valueFrom:
      file: four.pem   # where it is

  - name: db
    secretKeyRef: {{name: db, key: password}}
  access: [{{runSelector: {{}}}}]
---
kind: ConfigMap
data: {{value: not ours}}
"""


@pytest.fixture
def public(terminal: Terminal) -> str:
    (terminal.folder / "key.pub").write_text(KEY.public.text + "\n")
    return "--public-key=key.pub"


@pytest.fixture
def file(terminal: Terminal) -> Path:
    path = terminal.folder / "binding.yaml"
    path.write_text(FILE)
    (terminal.folder / "four.pem").write_bytes(b"-----BEGIN\n\xff\n")
    return path


def entries(text: str) -> dict[str, dict[str, str]]:
    found = next(item for item in yaml.safe_load_all(text) if item["kind"] == "SecretBinding")
    return {item["name"]: item for item in found["spec"]["secrets"]}


def opened(entry: dict[str, str], context: Context) -> bytes:
    assert set(entry) - {"scope"} == {"name", "sealed"}
    return RING.open(entry["sealed"], context)


def test_a_file_is_sealed_in_place_and_stays_as_it_is_otherwise(
    terminal: Terminal, public: str, file: Path
) -> None:
    file.chmod(0o640)
    done = terminal.run("seal", "-f", "binding.yaml", "-w", public)
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("binding.yaml: sealed token, shared, three, four\n")
    text = file.read_text()
    found = entries(text)
    assert opened(found["token"], BindingEntry("team-a", "ibm", "token")) == TOKEN.encode()
    assert opened(found["shared"], NamespaceEntry("team-a", "shared")) == f"{TOKEN}-it's".encode()
    assert opened(found["three"], BindingEntry("team-a", "ibm", "three")) == f"{TOKEN}\nline 2\n".encode()
    assert opened(found["four"], BindingEntry("team-a", "ibm", "four")) == b"-----BEGIN\n\xff\n"
    assert found["db"] == entries(FILE)["db"]
    assert TOKEN not in text
    # Every line that held no value is there as it was, in its order.
    kept = [line for line in FILE.splitlines() if not re.search("value|line 2|file:|canary", line)]
    assert [line for line in text.splitlines() if "rk1." not in line] == [
        *kept[: kept.index("kind: ConfigMap") + 1],
        "data: {value: not ours}",
    ]
    assert "  # keep this comment" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (
        terminal.run("seal", "-f", "binding.yaml", "-w", public).err
        == "there is nothing to seal: looked at 1 SecretBinding in 1 file\n"
    )
    assert file.read_text() == text


def test_without_w_it_is_printed_and_the_file_stays(terminal: Terminal, public: str, file: Path) -> None:
    assert "sealed" in entries(terminal.ok("seal", "binding.yaml", public))["token"]
    assert file.read_text() == FILE


def test_json_too(terminal: Terminal, public: str) -> None:
    path = terminal.folder / "b.json"
    path.write_text(
        '{"kind": "SecretBinding", "metadata": {"name": "b", "namespace": "n"},\n'
        ' "spec": {"secrets": [{"name": "t", "value": "v"}]}}\n'
    )
    found = entries(terminal.ok("seal", "b.json", public))
    assert opened(found["t"], BindingEntry("n", "b", "t")) == b"v"


def test_a_list_and_a_namespace_that_is_given(terminal: Terminal, public: str) -> None:
    text = "kind: List\nitems:\n- kind: SecretBinding\n  metadata: {name: b}\n  spec:\n    secrets:\n"
    (terminal.folder / "l.yaml").write_text(f"{text}    - {{name: t, value: v}}\n")
    missing = terminal.run("seal", "l.yaml", public)
    assert missing.code == 5
    assert "write metadata.namespace, or give -n" in missing.err
    printed = yaml.safe_load(terminal.ok("seal", "-n", "team-b", "l.yaml", public))
    entry = printed["items"][0]["spec"]["secrets"][0]
    assert opened(entry, BindingEntry("team-b", "b", "t")) == b"v"


@pytest.mark.parametrize(
    ("given", "expected"),
    [(f"{TOKEN}\n", TOKEN), (TOKEN, TOKEN), (f"{TOKEN}\nb\n", f"{TOKEN}\nb\n"), (f"{TOKEN} ", f"{TOKEN} ")],
    ids=["a line", "no line break", "several lines", "a space"],
)
def test_one_value_from_standard_input(terminal: Terminal, public: str, given: str, expected: str) -> None:
    words = ("seal", "-n", "team-a", "--binding", "ibm", "--entry", "token", public)
    text = terminal.ok(*words, stdin=given)
    assert RING.open(text.strip(), BindingEntry("team-a", "ibm", "token")) == expected.encode()


def test_one_value_from_a_prompt_is_not_shown(terminal: Terminal, public: str) -> None:
    words = ("seal", "-n", "team-a", "--scope", "Namespace", "--entry", "token", public)
    done = terminal.typed(*words, answers={"Value of entry token: ": f"{TOKEN}\n"})
    assert done.code == 0
    assert TOKEN not in done.out
    text = done.out.splitlines()[-1]
    assert RING.open(text, NamespaceEntry("team-a", "token")) == TOKEN.encode()


def test_one_value_from_a_file_byte_by_byte(terminal: Terminal, public: str) -> None:
    (terminal.folder / "v").write_bytes(b"\x00\xff\n")
    words = ("seal", "-n", "team-a", "--binding", "ibm", "--entry", "token", public)
    text = terminal.ok(*words, "--from-file", "v")
    assert RING.open(text.strip(), BindingEntry("team-a", "ibm", "token")) == b"\x00\xff\n"


PERSONAL = (
    "kind: SecretBinding\nmetadata: {name: b, namespace: n}\nspec:\n  owner: {username: alice}\n  secrets:\n"
)


def test_a_personal_binding_is_sealed_for_its_owner_whatever_its_name(
    terminal: Terminal, public: str
) -> None:
    (terminal.folder / "p.yaml").write_text(f"{PERSONAL}  - {{name: t, value: v}}\n")
    entry = entries(terminal.ok("seal", "p.yaml", public))["t"]
    assert opened(entry, PersonalEntry("n", "alice", "t")) == b"v"
    text = terminal.ok("seal", "-n", "n", "--owner", "alice", "--entry", "t", public, stdin="v")
    assert RING.open(text.strip(), PersonalEntry("n", "alice", "t")) == b"v"


def test_a_value_of_a_personal_binding_has_no_scope(terminal: Terminal, public: str) -> None:
    (terminal.folder / "p.yaml").write_text(f"{PERSONAL}  - {{name: t, scope: Namespace, value: v}}\n")
    done = terminal.run("seal", "p.yaml", public)
    assert (done.code, done.out) == (5, "")
    assert "p.yaml, line 6: entry 't' of SecretBinding b: scope: Namespace is for shared bindings" in done.err
    words = ("seal", "-n", "n", "--owner", "alice", "--entry", "t", public)
    for more, says in (
        (("--scope", "Namespace"), "leave scope out"),
        (("--binding", "b"), "give one of the two"),
    ):
        done = terminal.run(*words, *more, stdin="v")
        assert (done.code, done.out) == (2, ""), more
        assert says in done.err


def test_there_is_no_option_and_no_argument_for_a_value(terminal: Terminal) -> None:
    done = terminal.run("seal", "-n", "team-a", "--binding", "ibm", "--entry", "token", "--value", TOKEN)
    assert done.code == 2
    assert TOKEN not in done.out + done.err


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{name: t, value: x, sealed: rk1.a.b}", "has both sealed and value"),
        ("{name: t, value: x, valueFrom: {file: f}}", "has both value and valueFrom"),
        ("{name: t, value: {a: b}}", "value is not text"),
        ("{name: t, value: true}", "value is not text"),
        ("{name: t, valueFrom: {env: X}}", "valueFrom needs a file"),
        ("{name: t, valueFrom: {file: ../outside}}", "not below the manifest's own folder"),
        ("{name: t, valueFrom: {file: a/../../outside}}", "not below the manifest's own folder"),
        ("{name: t, valueFrom: {file: /etc/hostname}}", "not below the manifest's own folder"),
        ("{name: t, valueFrom: {file: link}}", "not below the manifest's own folder"),
        ("{name: t, valueFrom: {file: absent}}", "absent cannot be read: No such file or directory"),
        ("{value: x}", "an entry needs a name"),
        ("{name: t, value: x, scope: Wide}", "scope must be Strict or Namespace"),
        ("{name: t, value: &a x}\n  - {name: u, value: *a}", "anchors, aliases or merges"),
    ],
)
def test_what_cannot_be_sealed(terminal: Terminal, public: str, entry: str, says: str) -> None:
    text = "kind: SecretBinding\nmetadata: {name: b, namespace: n}\nspec:\n  secrets:\n"
    path = terminal.folder / "b.yaml"
    (terminal.folder.parent / "outside").write_text(TOKEN)
    (terminal.folder / "link").symlink_to(terminal.folder.parent / "outside")
    path.write_text(f"{text}  - {entry}\n")
    before = path.read_text()
    done = terminal.run("seal", "-w", "-f", "b.yaml", public)
    assert (done.code, done.out) == (5, "")
    assert says in done.err
    assert "b.yaml" in done.err
    assert path.read_text() == before


def test_broken_yaml_is_told_without_its_text(terminal: Terminal, public: str) -> None:
    (terminal.folder / "b.yaml").write_text(f"kind: SecretBinding\nvalue: '{TOKEN}\n")
    done = terminal.run("seal", "b.yaml", public)
    assert done.code == 5
    assert "this is not YAML" in done.err
    assert TOKEN not in done.err


def test_check_names_file_line_and_entry(terminal: Terminal, public: str, file: Path) -> None:
    done = terminal.run("seal", "--check", "binding.yaml")
    assert (done.code, done.out) == (5, "")
    found = re.findall(r"binding\.yaml:(\d+): entry '(\w+)'", done.err)
    lines = FILE.splitlines()
    assert [name for _, name in found] == ["token", "shared", "three", "four"]
    assert all(name in lines[int(line) - 1] for line, name in found)
    assert TOKEN not in done.err
    terminal.ok("seal", "-w", "binding.yaml", public)
    assert terminal.run("seal", "--check", "binding.yaml").code == 0
    file.write_text(file.read_text().replace("rk1.", "rk1.x", 1))
    assert "is not sealed correctly" in terminal.run("seal", "--check", "binding.yaml").err


RUN = f"""\
apiVersion: runkeys.dev/v1alpha1
kind: WorkflowRun
metadata: {{name: flow}}
spec:
  input:
    circuit: 1
    $secrets:
      token: {TOKEN}
"""
PLAIN = f"""\
apiVersion: v1
kind: Secret
metadata: {{name: db}}
stringData:
  password: {TOKEN}
"""


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("r.yaml", RUN, "r.yaml:8: $secrets of WorkflowRun flow is in the clear; `runkeys run` seals it"),
        (
            "l.yaml",
            "kind: List\nitems:\n- " + RUN.replace("\n", "\n  "),
            "l.yaml:10: $secrets of WorkflowRun flow",
        ),
        ("s.yaml", PLAIN, "s.yaml:5: stringData of Secret db is in the clear; base64 is no encryption"),
        (
            "d.yaml",
            "apiVersion: v1\nkind: Secret\ndata: {a: Y2FuYXJ5}\n",
            "d.yaml:3: data of Secret (without a name) is in the clear",
        ),
        ("in.json", '{"a": 1, "$secrets": {"t": "x"}}', "in.json:1: $secrets is in the clear"),
        (
            "w.yaml",
            f"kind: WorkflowRun\nmetadata: {{name: w}}\nspec: {{sealedInput: {{t: {TOKEN}}}}}\n",
            "w.yaml:3: sealedInput of WorkflowRun w is not sealed",
        ),
    ],
    ids=["run", "list", "Secret", "data", "input", "sealedInput"],
)
def test_what_is_in_the_clear_besides_bindings_is_found(
    terminal: Terminal, public: str, name: str, text: str, says: str
) -> None:
    (terminal.folder / name).write_text(text)
    checked = terminal.run("seal", "--check", name)
    assert (checked.code, checked.out) == (5, "")
    assert f"not everything is sealed:\n  {says}" in checked.err
    sealed = terminal.run("seal", "-w", name, public)
    assert (sealed.code, sealed.out) == (5, "")
    assert "this is in the clear still" in sealed.err
    assert says in sealed.err
    assert TOKEN not in checked.err + sealed.err
    assert (terminal.folder / name).read_text() == text


STORED = """\
apiVersion: runkeys.dev/v1alpha1
kind: SecretBinding
metadata: {name: keys, namespace: team-a}
spec:
  secrets:
  - {name: api, value: {store: bao, role: team-a, path: kv/data/api, field: token}}
  - {name: header, template: "Bearer {{ api }}"}
"""


def test_a_place_in_a_store_and_a_template_are_not_in_the_clear(terminal: Terminal, public: str) -> None:
    (terminal.folder / "stored.yaml").write_text(STORED)
    assert terminal.run("seal", "--check", "stored.yaml").code == 0
    terminal.ok("seal", "-w", "stored.yaml", public)
    assert (terminal.folder / "stored.yaml").read_text() == STORED


def test_check_says_what_it_looked_at_and_what_not(terminal: Terminal, public: str, file: Path) -> None:
    terminal.ok("seal", "-w", "binding.yaml", public)
    (terminal.folder / "run.yaml").write_text(RUN.partition("    $secrets")[0])
    (terminal.folder / "sops.yaml").write_text(f"{PLAIN}sops: {{}}\n")
    (terminal.folder / "api.yaml").write_text("kind: OpenAPI\nproperties: {$secrets: {type: object}}\n")
    names = (file.name, "run.yaml", "sops.yaml", "api.yaml")
    done = terminal.run("seal", "--check", *names)
    assert (done.code, done.out) == (0, "")
    assert done.err == (
        "looked at 1 SecretBinding, 1 WorkflowRun in 2 files: nothing is in the clear there. Other fields and kinds"
        " were not looked at, nor the other 2 files\n"
    )
    assert "not looked at: sops.yaml, api.yaml" in terminal.run("seal", "-v", "--check", *names).err
    nothing = terminal.run("seal", "--check", "api.yaml")
    assert (nothing.code, nothing.err) == (
        0,
        "nothing was looked at: there is no SecretBinding, WorkflowRun, Secret or $secrets in the files\n",
    )
    assert terminal.run("seal", "--check").code == 2


@pytest.mark.parametrize("name", ["binding.yaml", "my binding's.yaml", "a/b.yaml"])
def test_the_command_that_check_prints_works(terminal: Terminal, public: str, name: str) -> None:
    path = terminal.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(FILE)
    (path.parent / "four.pem").write_bytes(b"x")
    printed = terminal.run("seal", "--check", name).err.splitlines()[1].partition("seal it with: ")[2]
    words = shlex.split(printed)
    assert words[0] == "runkeys"
    terminal.ok(*words[1:], public)
    assert terminal.run("seal", "--check", name).code == 0


def test_without_a_namespace_the_command_says_what_comes_first(terminal: Terminal, public: str) -> None:
    (terminal.folder / "b.yaml").write_text(
        "kind: SecretBinding\nmetadata: {name: b}\nspec: {secrets: [{name: t, value: x}]}\n"
    )
    assert "write metadata.namespace, then seal it with" in terminal.run("seal", "--check", "b.yaml").err
    printed = terminal.run("seal", "-n", "team-b", "--check", "b.yaml").err.partition("seal it with: ")[2]
    assert printed == "runkeys seal -n team-b -w -f b.yaml\n"
    terminal.ok(*printed.split()[1:], public)


def test_pre_commit_hook_is_a_command_that_works(terminal: Terminal, file: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    name, *words = hook["entry"].split()
    assert (name, hook["language"], hook["types_or"]) == ("runkeys", "python", ["yaml", "json"])
    (terminal.folder / "chart.yaml").write_text("a: {{ .Values.a }}\n- b\n")
    (terminal.folder / "secret.yaml").write_text("kind: Secret\ndata:\n  {{- range .Values.a }}\n- b\n")
    assert terminal.run(*words, "chart.yaml", "secret.yaml").code == 0
    assert terminal.run(*words, "chart.yaml", file.name).code == 5


def backup(*keys: PrivateKey) -> str:
    data = {
        f"2026010{number}T000000Z.{key.public.key_id}": base64.b64encode(key.seed).decode()
        for number, key in enumerate(keys, 1)
    }
    return yaml.safe_dump({"kind": "Secret", "metadata": {"name": "runkeys-sealing-keys"}, "data": data})


def test_reseal_with_a_backup_of_the_keys(terminal: Terminal) -> None:
    place = BindingEntry("n", "b", "t")
    head = "kind: SecretBinding\nmetadata: {name: b, namespace: n}\nspec:\n  secrets: # these\n"
    current = seal(b"new", BindingEntry("n", "b", "u"), KEY.public)
    path = terminal.folder / "b.yaml"
    old = seal(TOKEN.encode(), place, OLD.public)
    path.write_text(f"{head}  - {{name: t, sealed: {old}}}  # old\n  - {{name: u, sealed: {current}}}\n")
    (terminal.folder / "keys.yaml").write_text(backup(OLD, KEY))
    done = terminal.run("reseal", "-w", "-f", "b.yaml", "--keys", "keys.yaml")
    assert (done.code, done.err) == (0, "b.yaml: sealed again t\n")
    found = entries(path.read_text())
    assert Keyring(KEY).open(found["t"]["sealed"], place) == TOKEN.encode()
    assert found["u"]["sealed"] == current
    lines = [f"- {{name: t, sealed: {found['t']['sealed']}}}  # old", f"- {{name: u, sealed: {current}}}"]
    assert path.read_text() == head + "".join(f"  {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("context", "sealed_for", "says"),
    [
        (BindingEntry("n", "other", "t"), OLD, "does not open as entry t of SecretBinding b"),
        (NamespaceEntry("n", "t"), OLD, "does not open as entry t of SecretBinding b"),
        (BindingEntry("n", "b", "t"), PrivateKey.from_seed(b"u" * 32), "which is not here"),
    ],
    ids=["another place", "never widened", "unknown key"],
)
def test_reseal_refuses(terminal: Terminal, context: Context, sealed_for: PrivateKey, says: str) -> None:
    path = terminal.folder / "b.yaml"
    path.write_text(
        "kind: SecretBinding\nmetadata: {name: b, namespace: n}\nspec:\n  secrets:\n"
        f"  - {{name: t, sealed: {seal(TOKEN.encode(), context, sealed_for.public)}}}\n"
    )
    before = path.read_text()
    (terminal.folder / "keys.yaml").write_text(backup(OLD, KEY))
    done = terminal.run("reseal", "-w", "b.yaml", "--keys", "keys.yaml")
    assert done.code == 5
    assert says in done.err
    assert path.read_text() == before


def test_reseal_without_keys_says_where_they_are(terminal: Terminal) -> None:
    done = terminal.run("reseal", "-f", "b.yaml")
    assert done.code == 2
    assert (
        "kubectl -n runkeys-system exec -i deploy/runkeys -- python -m runkeys_operator keys reseal"
        in done.err
    )


def test_a_damaged_backup_is_told_without_the_key(terminal: Terminal) -> None:
    text = backup(KEY).replace(base64.b64encode(KEY.seed).decode(), TOKEN)
    (terminal.folder / "keys.yaml").write_text(text)
    (terminal.folder / "b.yaml").write_text("kind: SecretBinding\n")
    done = terminal.run("reseal", "b.yaml", "--keys", "keys.yaml")
    assert done.code == 5
    assert "is damaged" in done.err
    assert TOKEN not in done.err


def test_a_key_is_trusted_once_and_another_one_stops_loudly(tmp_path: Path) -> None:
    trusted_keys, cluster = TrustedKeys(tmp_path / "pins.json"), "https://cluster:6443"
    assert trusted_keys.check(cluster, OLD.public) is False
    assert trusted_keys.check(cluster, OLD.public) is True
    with pytest.raises(Denied) as caught:
        trusted_keys.check(cluster, KEY.public)
    assert KEY.public.fingerprint in str(caught.value)
    assert OLD.public.fingerprint in str(caught.value)
    assert f"runkeys config trust-key {KEY.public.fingerprint}" in str(caught.value)
    assert trusted_keys.check("https://other:6443", KEY.public) is False
    trusted_keys.trust(cluster, KEY.public)
    assert trusted_keys.check(cluster, KEY.public) is True
    assert trusted_keys.check(cluster, OLD.public) is True


def test_git_shows_only_the_line_of_the_entry(terminal: Terminal, public: str, file: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words]
        done = subprocess.run(
            command, cwd=file.parent, capture_output=True, text=True, check=True, timeout=180
        )
        return done.stdout

    git("init", "-q")
    git("add", "binding.yaml")
    git("commit", "-qm", "in the clear, for the test")
    terminal.ok("seal", "-w", "binding.yaml", public)
    removed = [line for line in git("diff", "-U0").splitlines() if re.match("-[^-]", line)]
    assert all(re.search("value|canary|line 2|file:", line) for line in removed)


def test_which_file_went_into_a_value_is_said(terminal: Terminal, public: str, file: Path) -> None:
    """A manifest may be somebody else's: who seals it sees what it took."""
    done = terminal.run("seal", "-w", "-f", file.name, public)
    assert done.code == 0, done
    assert (
        "binding.yaml: entry 'four' of SecretBinding ibm is sealed with the content of four.pem" in done.err
    )


def test_a_file_below_the_manifest_is_taken_from_wherever_one_is(terminal: Terminal, public: str) -> None:
    folder = terminal.folder / "deploy"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "t").write_text(TOKEN)
    entry = "{name: t, valueFrom: {file: keys/../keys/t}}"
    text = f"kind: SecretBinding\nmetadata: {{name: b, namespace: n}}\nspec:\n  secrets:\n  - {entry}\n"
    (folder / "b.yaml").write_text(text)
    sealed = entries(terminal.ok("seal", "-f", "deploy/b.yaml", public))["t"]
    assert opened(sealed, BindingEntry("n", "b", "t")) == TOKEN.encode()


def test_a_parameter_of_pods_is_bound_to_their_account_and_expires(terminal: Terminal, public: str) -> None:
    given = ["seal", "--for-pods", public, "-n", "team-a", "--service-account", "runner"]
    done = terminal.run(*given, "--expires", "2h", stdin=TOKEN)
    expires, value = read_parameter(RING.open(done.out.strip(), PodParameter("team-a", "runner")))
    assert value.decode() == TOKEN
    assert timedelta(minutes=115) < expires - datetime.now(UTC) <= timedelta(hours=2)
    assert "pods of runner that are created before 20" in done.err
    assert TOKEN not in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--for-pods", "-n", "team-a"), "give -n and --service-account"),
        (("--for-pods", "--service-account", "runner"), "give -n and --service-account"),
        (("--for-pods", "-n", "a", "--service-account", "r", "--entry", "x"), "leave the others out"),
        (("--for-pods", "-n", "a", "--service-account", "r", "--expires", "soon"), "found 'soon'"),
        (("--for-pods", "-n", "a", "--service-account", "r", "--expires", "0h"), "found '0h'"),
        (("-n", "a", "--binding", "b", "--entry", "e", "--expires", "2h"), "are for --for-pods"),
    ],
)
def test_options_of_a_parameter_are_checked(
    terminal: Terminal, public: str, arguments: tuple[str, ...], says: str
) -> None:
    done = terminal.run("seal", public, *arguments, stdin=TOKEN)
    assert done.code == 2
    assert says in done.err
    assert TOKEN not in done.out + done.err
