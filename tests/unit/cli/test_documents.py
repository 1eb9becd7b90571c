"""Files that people have, read as `kubectl` reads them, and errors that say where."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runkeys import config
from runkeys._text.text_files import decode
from runkeys.cli._binding_files import BindingFile
from runkeys.cli._documents import read_documents, read_json
from runkeys.cli._env_file import read_env_file
from runkeys.cli._framework import Settings
from runkeys.cli.runs import read_manifest
from runkeys.cli.seal import _keyring, _public_key
from runkeys.client.submission import parse_run, take_secrets
from runkeys.client.trusted_keys import TrustedKeys
from runkeys.kv import FileValues
from runkeys.mapping import parse_mapping
from runkeys.problems import Invalid, NotFound, Problem
from testing.namespace import canary


def read(text: str) -> Any:
    [found] = read_documents("a.yaml", text)
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("12:30:00", "12:30:00"),
        ("190:20:30.15", "190:20:30.15"),
        ("1e3", 1000),
        ("1.5e3", 1500),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("017", 15),
        ("089", 89),
        ("+12", 12),
        ("2026-11-29", "2026-11-29"),
        ("2026-11-29T01:02:03Z", "2026-11-29T01:02:03Z"),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 1.8446744073709552e19),
        ("=", "="),
        ("yes", True),
        ("y", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("'1e3'", "1e3"),
        ("!!str 1e3", "1e3"),
        ("!!int 7", 7),
        ("!Ref Other", "Other"),
        ("!!binary aGVsbG8=", "hello"),
        ('"\\ud83d\\ude00"', "😀"),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("-", [None]),
    ],
)
def test_a_scalar_means_what_it_means_to_kubectl(written: str, meant: Any) -> None:
    found = read(f"a: {written}\n" if written != "-" else "a:\n- \n")["a"]
    assert (found, type(found)) == (meant, type(meant))


def test_control_pyyaml_alone_reads_some_of_them_otherwise() -> None:
    found = yaml.safe_load("{a: 12:30:00, b: 1e3, c: 2026-11-29}")
    assert found["a"] == 45000
    assert found["b"] == "1e3"
    assert not isinstance(found["c"], str)


def test_keys_merges_anchors_and_tags_of_others() -> None:
    text = "base: &b {x: 1, z: 2}\nown: {<<: *b, z: 3}\n1: a\ntrue: b\nother: !Sub {p: !GetAtt q.r}\n"
    assert read(text) == {
        "base": {"x": 1, "z": 2},
        "own": {"x": 1, "z": 3},
        "1": "a",
        "true": "b",
        "other": {"p": "q.r"},
    }


@pytest.mark.parametrize(
    "text",
    [
        '{\n\t"kind": "WorkflowRun",\n\t"spec": {\n\t\t"tasks": []\n\t}\n}\n',
        '\ufeff{"kind": "WorkflowRun", "spec": {"tasks": []}}',
        "\ufeffkind: WorkflowRun\nspec: {tasks: []}\n",
        "kind: List\nitems:\n- kind: Job\n- kind: WorkflowRun\n  spec: {tasks: []}\n",
        '{"kind": "WorkflowRunList", "items": [{"kind": "WorkflowRun", "spec": {"tasks": []}}]}',
        '{"kind": "Job"}\n{"kind": "WorkflowRun", "spec": {"tasks": []}}',
        "{kind: WorkflowRun, spec: {tasks: []}}",
        "--- # a comment\n---\nkind: WorkflowRun\nspec: {tasks: []}\n...\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_forms_of_a_manifest(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(text.removeprefix("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    assert read_manifest(str(path)) == {"kind": "WorkflowRun", "spec": {"tasks": []}}


VALUE = canary()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a:\n  b: [1, .nan]\n", "a.yaml: a.b[1]: NaN and infinity are not JSON"),
        ('{"a": {"b": NaN}}', "a.yaml: a.b: NaN and infinity are not JSON"),
        ("a:\n  b: -.inf\n", "a.yaml: a.b: NaN"),
        ('a: "@@\\ud83d"\n', "a.yaml: a: it holds half of a character"),
        ("a: {{ .Values.x }}\n", "a.yaml, line 1"),
        ("a: @@\nb: [@@\n", "a.yaml, line 3: this is not YAML"),
        ("a: '@@\n", "this is not YAML"),
        ("a: @@\0\n", "a.yaml: this is not YAML"),
        ("a: !!int x\n", "a.yaml, line 1, a: its tag !!int does not fit"),
        ("? [a, b]\n: 1\n", "a.yaml, line 1: a key must be a text"),
        (
            "a:\n  n: 1\n",
            "a.yaml, line 2, a: the key n means true or false to kubectl; put quotes around it",
        ),
        ("a: &a [*a]\n", "its aliases come to more"),
        ("a: {<<: 1}\n", "<< takes a mapping"),
        ("[" * 5000, "nested more than"),
        ('{"a":' * 5000, "nested more than"),
        ('a: "\\UFFFFFFFF"\n', "this is not YAML"),
    ],
)
def test_what_cannot_be_read_is_named_and_not_shown(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_documents("a.yaml", text.replace("@@", VALUE))
    assert says in str(caught.value)
    assert VALUE not in str(caught.value)
    assert caught.value.__context__ is None


def test_json_with_tabs_and_pairs_of_halves_is_sealed_where_it_stands() -> None:
    text = '{\n\t"kind": "SecretBinding", "metadata": {"name": "b", "namespace": "t"},\n'
    text += '\t"spec": {"secrets": [{"name": "a\tb", "value": "\\ud83d\\ude00"}]}\n}\n'
    file = BindingFile(Path("a.json"), text)
    [entry] = file.entries()
    assert (entry.name, entry.line, file.value(entry)) == ("a\tb", 3, "😀".encode())
    sealed = file.sealed(lambda _: "rk1.x")
    assert sealed == text.replace('"value": "\\ud83d\\ude00"', '"sealed": "rk1.x"')
    alone = BindingFile(Path("a.json"), text.replace("\\ude00", ""))
    with pytest.raises(Invalid, match=r"line 3: entry .* holds half of a character"):
        alone.value(next(alone.entries()))


def test_aliases_of_aliases_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(Invalid, match="its aliases come to more"):
        read_documents("a.yaml", "\n".join(lines))


def test_a_folder_has_the_run_beside_files_of_other_tools(tmp_path: Path) -> None:
    (tmp_path / "chart.yaml").write_text("a: {{ .Values.x }}\n")
    (tmp_path / "notes.txt").write_text("kind: WorkflowRun\n")
    with pytest.raises(Invalid, match="has no WorkflowRun"):
        read_manifest(str(tmp_path))
    (tmp_path / "run.yaml").write_text("kind: WorkflowRun\nspec: {tasks: []}\n")
    assert read_manifest(str(tmp_path))["kind"] == "WorkflowRun"
    (tmp_path / "run2.json").write_text('{"kind": "WorkflowRun"}')
    with pytest.raises(Invalid, match="has 2 WorkflowRuns, and `run` starts one"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_of_any_unicode_encoding(encoding: str) -> None:
    assert decode("A=pä$$\n".encode(encoding)) == "A=pä$$\n"


def test_another_encoding_is_not_guessed() -> None:
    with pytest.raises(ValueError, match=r"^line 2 is not text in UTF-8$") as caught:
        decode(f"A=1\nB={VALUE}ü\n".encode("latin-1"))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("text", ["", " ", "null", "a", "[]", "[1]", "kind: WorkflowRun", "x: 1\n---\n- 2\n"])
def test_no_run_is_said_in_plain_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    if "WorkflowRun" in text:
        assert read_manifest(str(path))
        return
    with pytest.raises(Invalid, match="has no WorkflowRun, nothing that says `kind: WorkflowRun`"):
        read_manifest(str(path))


# every reader of a user's file, with what nobody writes on purpose

KEYS = st.sampled_from(
    [
        "metadata",
        "labels",
        "name",
        "spec",
        "input",
        "$secrets",
        "tasks",
        "secrets",
        "bindings",
        "sealedInput",
        "a",
    ]
)
NODES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "kind: SecretBinding\n",
            "a: ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            "!t ",
            "!!int ",
            "&a ",
            "*a",
            "<<: ",
            "\n",
            "  ",
            "\t",
            '"',
            "'",
            "\\u",
            "%YAML 9.9\n",
            "---\n",
            "2026-01-01",
            ".nan",
            "1e999",
            "0x",
            "? ",
            "{{ x }}",
            "\x00",
            "�",
            "é",
        ]
    ),
    max_size=12,
).map("".join)


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(FRAGMENTS | st.text(max_size=30))
def test_any_text_is_read_or_refused_as_what_it_is(text: str) -> None:
    for reader in (
        read_documents,
        read_json,
        lambda path, text: list(BindingFile(Path(path), text).entries()),
    ):
        with contextlib.suppress(Problem):
            reader("a", text)


@FEW
@given(st.binary(max_size=60) | FRAGMENTS.map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_an_env_file_or_refused_as_what_they_are(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.env"
    path.write_bytes(raw)
    with contextlib.suppress(Problem):
        read_env_file(str(path))
    with contextlib.suppress(Problem):
        read_manifest(str(path))


@FEW
@given(st.dictionaries(KEYS, NODES, max_size=4))
def test_any_manifest_is_taken_or_refused_with_its_field(document: dict[str, Any]) -> None:
    made = {"kind": "WorkflowRun", **document}
    with contextlib.suppress(Problem):
        [made] = read_documents("a", json.dumps(made))
        rest, _ = take_secrets(made)
        parse_run({**rest, "metadata": {"name": "a", "namespace": "n"}})


ENTRIES = st.dictionaries(
    st.sampled_from(["name", "value", "valueFrom", "sealed", "scope", "file"]),
    st.text(max_size=5)
    | st.integers()
    | st.none()
    | st.dictionaries(st.just("file"), st.text(max_size=5), max_size=1),
)
BINDINGS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["SecretBinding", "SecretBindingList", "List", 7, None]),
        "metadata": st.dictionaries(st.sampled_from(["name", "namespace"]), NODES, max_size=2) | NODES,
        "spec": st.dictionaries(st.sampled_from(["secrets", "owner"]), st.lists(ENTRIES, max_size=3) | NODES)
        | NODES,
        "items": NODES,
    }
)


@FEW
@given(BINDINGS)
@example({"kind": "SecretBinding", "metadata": "x", "spec": {"secrets": [{"name": "x", "value": "x"}]}})
def test_any_binding_is_sealed_or_refused_with_its_place(document: dict[str, Any]) -> None:
    for text in (json.dumps(document), json.dumps(document, indent="\t"), yaml.safe_dump(document)):
        with contextlib.suppress(Problem):
            file = BindingFile(Path("a"), text)
            for entry in file.entries():
                with contextlib.suppress(Problem):
                    file.value(entry)
            file.sealed(lambda item: "rk1.x" if item.source or item.text("sealed") is not None else None)


@FEW
@given(
    st.binary(max_size=60)
    | FRAGMENTS.map(lambda text: text.encode(errors="surrogatepass"))
    | NODES.map(as_json)
)
def test_any_configuration_is_read_or_refused_as_what_it_is(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(raw)
    for read in (
        lambda: config.read_kubeconfig(str(path)),
        lambda: config._read(path),
        lambda: TrustedKeys(path).all(),
        lambda: _keyring(str(path)),
        lambda: _public_key(Settings(), str(path)),
        lambda: parse_mapping(raw.decode(errors="replace")),
        lambda: FileValues(path).keys(),
    ):
        with contextlib.suppress(Problem):
            read()


def test_an_absent_file_is_absent() -> None:
    for path in ("absent", "a\0b"):
        with pytest.raises(NotFound, match="there is no file"):
            read_manifest(path)
