"""`runkeys completion`, and the completion of `kubectl runkeys …`."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import BashComplete, ShellComplete, get_completion_class

from runkeys.cli._framework import Settings, command
from runkeys.cli._printing import data, echo

_NO_FILES, _DEFAULT = 4, 0
"""Directives of kubectl: no file names, and the shell's default."""

_KUBECTL_SCRIPT = """\
#!/bin/sh
exec runkeys completion kubectl -- "$@"
"""


class _Bash(BashComplete):
    """Skips the check of bash's version, which needs bash to be installed."""

    def source(self) -> str:
        return ShellComplete.source(self)


@command(
    epilog="For kubectl, save the output of `completion kubectl` as an executable file kubectl_complete-runkeys in"
    " the PATH, unless pip has already installed one there."
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "kubectl"]))
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def completion(_: Settings, shell: str, words: tuple[str, ...]) -> None:
    """Print the completion script for SHELL.

    \b
      eval "$(runkeys completion bash)"
      runkeys completion fish > ~/.config/fish/completions/runkeys.fish
    """  # noqa: D301 -- click wants the character itself
    from runkeys.cli import cli

    if shell == "kubectl":
        if words:
            for_kubectl(words)
        else:
            data(_KUBECTL_SCRIPT)
        return
    kind = _Bash if shell == "bash" else get_completion_class(shell)
    if kind is not None:
        data(kind(cli, {}, "runkeys", "_RUNKEYS_COMPLETE").source() + "\n")


def for_kubectl(words: Sequence[str]) -> None:
    """Print the completions of the last word in kubectl's format."""
    from runkeys.cli import cli

    *args, incomplete = words or ("",)
    found = ShellComplete(cli, {}, "kubectl runkeys", "").get_completions(args, incomplete)
    for item in found:
        if item.type == "plain":
            echo(f"{item.value}\t{item.help}" if item.help else item.value)
    echo(f":{_DEFAULT if any(item.type != 'plain' for item in found) else _NO_FILES}")
