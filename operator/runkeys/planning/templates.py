"""Templates of binding entries: what is wrong with one. Pure."""

from __future__ import annotations

from runkeys._text.templates import Template, TemplateError, parse, shortened
from runkeys.api import BindingEntry, SecretBinding
from runkeys.planning.refusal import Reason, Refusal, listed


def template_of(binding: SecretBinding, entry: BindingEntry, field: str) -> Template | Refusal:
    """The template of an entry, whose names are all entries with a source of their own; or what is wrong with it.

    :param field: path of what asks for the entry, for the refusal.
    """
    try:
        found = parse(entry.template or "")
    except TemplateError as error:
        return _refusal(binding, entry, field, str(error))
    for name in found.names:
        problem = _problem(binding, entry, name)
        if problem is not None:
            return _refusal(binding, entry, field, problem)
    return found


def _problem(binding: SecretBinding, entry: BindingEntry, name: str) -> str | None:
    """What keeps a template from referring to the entry called ``name``; None if it may."""
    shown = repr(shortened(name))
    if name == entry.name:
        return f"it refers to itself; refer to entries that have a value of their own, not to {shown}"
    part = binding.entry(name)
    if part is None:
        others = [item.name for item in binding.spec.secrets if item.template is None]
        return (
            f"it refers to {shown}, and the binding has no such entry; correct the name, or add the entry. A template"
            f" can refer to: {listed(sorted(others)) or 'nothing, since all entries are templates'}"
        )
    if part.template is not None:
        return f"it refers to {shown}, which is a template too; write its text in place of {{{{ {shortened(name)} }}}}"
    return None


def _refusal(binding: SecretBinding, entry: BindingEntry, field: str, problem: str) -> Refusal:
    index = binding.spec.secrets.index(entry)
    message = f"SecretBinding {binding.metadata.name}, spec.secrets[{index}].template, entry {entry.name!r}: {problem}"
    return Refusal(Reason.BINDING_INVALID, field, message, permanent=False)
