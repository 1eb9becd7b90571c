"""Values in the clear in files: what `runkeys seal` looks at, and what it finds there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from runkeys import sealing
from runkeys._text.words import shell
from runkeys.cli._binding_files import KIND, SEALED, BindingFile, Entry, get, objects, text_of
from runkeys.mapping import SECRETS
from runkeys.problems import Invalid

RUN, PLAIN, INPUT = "WorkflowRun", "Secret", f"file with {SECRETS}"
LOOKED_AT = f"SecretBinding, WorkflowRun, Secret or {SECRETS}"

_OURS = re.compile(rf"\b(?:{KIND}|{RUN})\b")
_MENTION = re.compile(rf"\b(?:{KIND}|{RUN})\b|\bkind\W{{1,4}}{PLAIN}\b|{re.escape(SECRETS)}")
_BY_RUN = f"`runkeys run` seals it when it starts a run: keep {SECRETS} in a file that is not committed (--input @FILE)"
_BY_BINDING = "base64 is no encryption: write its values into a SecretBinding, and seal that"


@dataclass(frozen=True)
class Finding:
    """A place with a value in the clear, or with one that is not sealed as it has to be.

    :ivar sealable: `runkeys seal` can seal it where it is.
    """

    path: str
    line: int
    message: str
    sealable: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass
class Report:
    """What was looked at in files, and what was found.

    :ivar kinds: number of objects looked at, by kind. :ivar passed_over: files with none of these.
    """

    findings: list[Finding] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    files: int = 0
    passed_over: list[str] = field(default_factory=list)

    def add(self, path: str, text: str, namespace: str | None) -> None:
        """Look at one file.

        :param namespace: of the command line, for the commands in messages.
        :raises Invalid: it mentions a kind of ours, and is no YAML.
        """
        if _MENTION.search(text) is None:
            self.passed_over.append(path)
            return
        try:
            file = BindingFile(Path(path), text)
        except Invalid:
            if _OURS.search(text) is not None:
                raise
            self.passed_over.append(path)  # e.g. a template of a Secret
            return
        before = sum(self.kinds.values())
        self.findings += self._of_bindings(file, path, namespace)
        for document in file.documents:
            for item in objects(document):
                self.findings += self._of_object(item, path)
        if sum(self.kinds.values()) == before:
            self.passed_over.append(path)
        else:
            self.files += 1

    @property
    def summary(self) -> str:
        """What was looked at, in words."""
        counts = [f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in self.kinds.items()]
        if not counts:
            return f"nothing was looked at: there is no {LOOKED_AT} in the files"
        return f"looked at {', '.join(counts)} in {self.files} file{'s' if self.files > 1 else ''}"

    def _of_bindings(self, file: BindingFile, path: str, namespace: str | None) -> Iterator[Finding]:
        for document in file.documents:
            self.kinds[KIND] += sum(text_of(item, "kind") == KIND for item in objects(document))
        self.kinds += Counter()  # without zeros
        for item in file.entries():
            problem = _problem(item, path, namespace)
            if problem:
                yield Finding(path, item.line, f"{item.where} {problem}", sealable=bool(item.source))

    def _of_object(self, node: yaml.MappingNode, path: str) -> Iterator[Finding]:
        kind, name = text_of(node, "kind"), text_of(get(node, "metadata"), "name") or "(without a name)"
        if kind == RUN:
            self.kinds[RUN] += 1
            spec = get(node, "spec")
            yield from _of_secrets(get(get(spec, "input"), SECRETS), f"{SECRETS} of WorkflowRun {name}", path)
            sealed = get(spec, "sealedInput")
            for key, value in sealed.value if isinstance(sealed, yaml.MappingNode) else []:
                if not (isinstance(value, yaml.ScalarNode) and value.value.startswith("rk1.")):
                    where = f"sealedInput of WorkflowRun {name}"
                    yield Finding(path, key.start_mark.line + 1, f"{where} is not sealed; {_BY_RUN}")
        elif kind == PLAIN and text_of(node, "apiVersion") in ("v1", "") and get(node, "sops") is None:
            self.kinds[PLAIN] += 1
            for key in ("data", "stringData"):
                values = get(node, key)
                if isinstance(values, yaml.MappingNode) and values.value:
                    line = values.value[0][0].start_mark.line + 1
                    yield Finding(path, line, f"{key} of Secret {name} is in the clear; {_BY_BINDING}")
        elif not kind and get(node, SECRETS) is not None:
            self.kinds[INPUT] += 1
            yield from _of_secrets(get(node, SECRETS), SECRETS, path)


def _of_secrets(node: yaml.Node | None, where: str, path: str) -> Iterator[Finding]:
    if isinstance(node, yaml.MappingNode) and node.value:
        line = node.value[0][0].start_mark.line + 1
        yield Finding(path, line, f"{where} is in the clear; {_BY_RUN}")
    elif isinstance(node, yaml.ScalarNode | yaml.SequenceNode) and node.value not in ("", "null", "~", []):
        yield Finding(path, node.start_mark.line + 1, f"{where} is in the clear; {_BY_RUN}")


def _problem(item: Entry, path: str, namespace: str | None) -> str:
    if item.source:
        # Without a namespace the command could not work: a value is sealed for one.
        first = "" if item.namespace or namespace else "write metadata.namespace, then "
        option = ("-n", namespace) if namespace and not item.namespace else ()
        command = shell("runkeys", "seal", *option, "-w", "-f", path)
        return f"is in the clear ({item.source}); {first}seal it with: {command}"
    text = item.text(SEALED)
    if text is None:
        return ""
    try:
        sealing.key_id_of(text)
    except sealing.SealError as error:
        return f"is not sealed correctly: {error}"
    return ""
