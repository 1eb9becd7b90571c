"""`runkeys init`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from runkeys.cli._framework import Settings, command
from runkeys.cli._printing import echo
from runkeys.problems import Invalid

_DOTTED = {"dot-env": ".env", "dot-gitignore": ".gitignore", "dot-dockerignore": ".dockerignore"}


@command()
@click.argument("template", type=click.Choice(["hello"]))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def init(settings: Settings, template: str, folder: Path | None) -> None:
    """Create a small project in FOLDER (default: `hello`): a service, its test, a workflow and a Dockerfile."""
    target = folder or Path(template)
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
        f"  cd {target}\n"
        "  runkeys run --local -f workflow.yaml --env-file .env\n"
        "  python3 -m unittest"
    )
