"""Files with SecretBindings: finding unsealed values, and sealing them in place.

Only the sealed entries of a file are changed, at the positions that the YAML parser reports. All else stays exactly as
it was, including comments and order. The result is read again and compared with the expected content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runkeys.cli._documents import joined, read_texts, yaml_nodes
from runkeys.problems import Invalid

VALUE, VALUE_FROM, SEALED = "value", "valueFrom", "sealed"
KIND = "SecretBinding"
_LISTS = ("List", f"{KIND}List")


@dataclass(frozen=True)
class Entry:
    """An entry of a SecretBinding in a file.

    :ivar namespace: namespace of the binding; empty if the file does not say.
    :ivar owner: username of a personal binding's owner; empty for a shared binding.
    :ivar line: first line of the entry, from 1.
    :ivar source: ``value`` or ``valueFrom`` if the entry is not sealed, else empty.
    """

    namespace: str
    binding: str
    owner: str
    name: str
    scope: str
    line: int
    source: str
    node: yaml.MappingNode

    @property
    def where(self) -> str:
        """Description of the entry for messages."""
        return f"entry {self.name!r} of {KIND} {self.binding or '(without a name)'}"

    @property
    def file(self) -> str:
        """Name of the file with the entry's value; empty if there is none."""
        return text_of(get(self.node, VALUE_FROM), "file")

    def text(self, key: str) -> str | None:
        """Return the scalar under ``key`` of the entry; None if it has none."""
        node = get(self.node, key)
        return node.value if isinstance(node, yaml.ScalarNode) else None


class BindingFile:
    """A YAML or JSON file. It is read but not changed."""

    def __init__(self, path: Path, text: str) -> None:
        """:raises Invalid: it is no YAML."""
        self.path, self.text = path, text
        self.documents = yaml_nodes(str(path), text)

    def entries(self) -> Iterator[Entry]:
        """Return all entries of all SecretBindings in the file."""
        for document in self.documents:
            for binding in _bindings(document):
                metadata = get(binding, "metadata")
                namespace, name = text_of(metadata, "namespace"), text_of(metadata, "name")
                spec = get(binding, "spec")
                secrets, owner = get(spec, "secrets"), text_of(get(spec, "owner"), "username")
                for node in secrets.value if isinstance(secrets, yaml.SequenceNode) else []:
                    if isinstance(node, yaml.MappingNode):
                        yield self._entry(namespace, name, owner, node)

    def _entry(self, namespace: str, binding: str, owner: str, node: yaml.MappingNode) -> Entry:
        source = next((key for key in (VALUE, VALUE_FROM) if _in_the_clear(get(node, key))), "")
        return Entry(
            namespace,
            binding,
            owner,
            text_of(node, "name"),
            text_of(node, "scope"),
            node.start_mark.line + 1,
            source,
            node,
        )

    def value(self, entry: Entry) -> bytes:
        """Return the value of an unsealed entry. A file's content is used byte for byte.

        :raises Invalid: the value cannot be read.
        """
        where = f"{self.path}, line {entry.line}: {entry.where}"
        if get(entry.node, SEALED) is not None:
            raise Invalid(f"{where} has both sealed and {entry.source}; remove the one that is out of date")
        if get(entry.node, VALUE) is not None and get(entry.node, VALUE_FROM) is not None:
            raise Invalid(f"{where} has both value and valueFrom; remove one of them")
        if entry.source == VALUE:
            node = get(entry.node, VALUE)
            if not isinstance(node, yaml.ScalarNode) or node.tag not in (
                "tag:yaml.org,2002:str",
                "tag:yaml.org,2002:int",
            ):
                raise Invalid(f"{where}: value is not text; put quotes around it")
            try:
                return joined(str(node.value)).encode()
            except ValueError as error:
                raise Invalid(f"{where}: {error}") from None
        name = entry.file
        if not name:
            raise Invalid(f"{where}: valueFrom needs a file, e.g. valueFrom: {{file: cert.pem}}")
        # A manifest from elsewhere must not choose a file of this machine, and have it opened where it is applied.
        here = self.path.parent.resolve()
        found = (here / name).resolve()
        if not found.is_relative_to(here):
            raise Invalid(
                f"{where}: valueFrom.file is {name}, which is not below the manifest's own folder. If you mean that"
                " file, copy it there, or seal it alone with --entry and --from-file"
            )
        try:
            return found.read_bytes()
        except OSError as error:
            raise Invalid(f"{where}: {name} cannot be read: {error.strerror}") from None

    def sealed(self, seal: Callable[[Entry], str | None]) -> str:
        """Return the file's text with sealed entries.

        :param seal: returns the sealed text of an entry; None leaves the entry as it is.
        """
        changes: list[tuple[int, int, str]] = []
        expected = self._data()
        for entry in self.entries():
            text = seal(entry)
            if text is None:
                continue
            key = entry.source or SEALED
            changes.append(self._change(entry, key, text))
            _replace(expected, entry, key, text)
        changed = self.text
        for begin, end, text in sorted(changes, reverse=True):
            changed = changed[:begin] + text + changed[end:]
        try:
            good = read_texts(str(self.path), changed) == expected
        except Invalid:
            good = False
        if not good:
            raise Invalid(
                f"{self.path}: the entries to seal use anchors, aliases or merges; write those entries out"
            )
        return changed

    def _data(self) -> list[Any]:
        return read_texts(str(self.path), self.text)

    def _change(self, entry: Entry, key: str, text: str) -> tuple[int, int, str]:
        found = next((k, v) for k, v in entry.node.value if isinstance(k, yaml.ScalarNode) and k.value == key)
        name, value = found
        begin, end = name.start_mark.index, max(name.end_mark.index, _end(value))
        # What ends a block is found only after it: line breaks and spaces there belong to what follows.
        end = begin + len(self.text[begin:end].rstrip())
        return begin, end, f'"{SEALED}": "{text}"' if name.style == '"' else f"{SEALED}: {text}"


def _in_the_clear(found: yaml.Node | None) -> bool:
    """Whether there is something to seal. A ``value`` that names a store is only a place."""
    return found is not None and get(found, "store") is None


def _end(node: yaml.Node) -> int:
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)


def _replace(documents: list[Any], entry: Entry, key: str, text: str) -> None:
    """The same in what was loaded, to compare with."""
    for document in documents:
        for binding in _loaded_bindings(document):
            found = binding.get("metadata")
            metadata = found if isinstance(found, dict) else {}
            if (metadata.get("namespace") or "", metadata.get("name") or "") != (
                entry.namespace,
                entry.binding,
            ):
                continue
            for item in binding["spec"]["secrets"]:
                if str(item.get("name", "")) == entry.name and key in item:
                    del item[key]
                    item[SEALED] = text
                    return


def _loaded_bindings(document: Any) -> list[Any]:
    if not isinstance(document, dict):
        return []
    items = document.get("items") or [] if document.get("kind") in _LISTS else [document]
    return [item for item in items if isinstance(item, dict) and item.get("kind") == KIND]


def objects(document: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Return the objects of a document: itself, or those of a list."""
    if not isinstance(document, yaml.MappingNode):
        return
    items = get(document, "items")
    if text_of(document, "kind").endswith("List") and isinstance(items, yaml.SequenceNode):
        for item in items.value:
            yield from objects(item)
    else:
        yield document


def _bindings(document: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    return (item for item in objects(document) if text_of(item, "kind") == KIND)


def get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Return the value of a key of a mapping; None if there is none."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((v for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == key), None)


def text_of(node: yaml.Node | None, key: str) -> str:
    """Return the text under a key; empty if there is none."""
    found = get(node, key)
    return str(found.value) if isinstance(found, yaml.ScalarNode) else ""
