"""`runkeys init`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from runkeys._text.words import shell
from runkeys.cli._framework import Settings, command
from runkeys.cli._printing import echo
from runkeys.problems import Invalid, Usage

_TEMPLATE, _FOLDER = "hello", "user_code"
_DOTTED = {"dot-env": ".env", "dot-gitignore": ".gitignore", "dot-dockerignore": ".dockerignore"}


@command()
@click.argument("words", nargs=-1, metavar="[FOLDER]")
def init(settings: Settings, words: tuple[str, ...]) -> None:
    """Create a small project in FOLDER (default: `user_code`): a service, its input, a test, a workflow, a Dockerfile.

    `runkeys init hello FOLDER` does the same.
    """
    template, *rest = words if len(words) == 2 else (_TEMPLATE, *words)
    if template != _TEMPLATE or len(rest) > 1:
        raise Usage(f"there is one template, {_TEMPLATE}, and it takes one folder: runkeys init FOLDER")
    target = Path(rest[0] if rest else _FOLDER)
    if target.exists() and not target.is_dir():
        raise Invalid(f"{target} is a file; name a folder")
    if target.exists() and any(target.iterdir()):
        raise Invalid(f"{target} is not empty; name another folder")
    source = resources.files("runkeys.cli") / "templates" / template
    with resources.as_file(source) as root:
        for path in sorted(root.rglob("*")):
            if path.is_dir() or path.suffix == ".pyc":
                continue
            relative = path.relative_to(root)
            # Written plainly in the package: tools leave out files that begin with a dot, and run what is *.py.
            name = _DOTTED.get(relative.name, relative.name.removesuffix(".txt"))
            made = target / relative.parent / name
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(path.read_bytes())
            if settings.output == "name":
                echo(str(made))
    settings.say(
        f"created {target}. Try it:\n"
        f"  {shell('cd', str(target))}\n"
        "  runkeys run --local -f workflow.yaml --env-file .env\n"
        "or, with an environment of its own:\n"
        "  uv venv && source .venv/bin/activate && uv sync\n"
        "  export $(cat .env | xargs)\n"
        "  python -m src\n"
        "  python -m unittest"
    )
