"""`runkeys install`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click

from runkeys._text.words import shell
from runkeys.cli._framework import Settings, command
from runkeys.cli._printing import echo
from runkeys.problems import Problem, Usage

RELEASE = "runkeys"
_SECONDS = 180


@command()
@click.option("-f", "--values", "files", multiple=True, type=click.Path(), help="Values file, as for helm.")
@click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="One value, as for helm.")
@click.option(
    "--chart",
    type=click.Path(),
    help="Folder of the chart. Default: the chart that was installed with this command.",
)
@click.option("--dry-run", is_flag=True, help="Print the helm command without running it.")
def install(
    settings: Settings, files: tuple[str, ...], sets: tuple[str, ...], chart: str | None, *, dry_run: bool
) -> None:
    """Install or upgrade the operator with helm, and wait until it is ready."""
    words = [
        *("helm", "upgrade", "--install", RELEASE, chart or str(bundled_chart())),
        *("--namespace", settings.operator(), "--create-namespace"),
        *("--wait", "--timeout", f"{_SECONDS}s"),
    ]
    named = settings.named()
    if named is not None:
        for option, value in (("--kubeconfig", named.kubeconfig), ("--kube-context", named.context)):
            words += [option, value] if value else []
    words += [part for item in files for part in ("--values", item)]
    words += [part for item in sets for part in ("--set", item)]
    if dry_run:
        echo(shell(*words))
        return
    helm = shutil.which("helm")
    if helm is None:
        raise Usage(
            "helm is not in the PATH, and it is needed to install the operator. Install helm 3.14 or newer"
            " (https://helm.sh), or apply the manifests of deploy/ in the repository with kubectl"
        )
    settings.say(shell(*words))
    done = subprocess.run(
        [helm, *words[1:]], capture_output=True, text=True, check=False, timeout=_SECONDS + 60
    )
    if done.returncode != 0:
        raise Problem(
            f"helm exited with code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    if settings.verbose:
        settings.say(done.stdout.rstrip())
    settings.say(f"the operator is ready in namespace {settings.operator()}. Check it: runkeys doctor")


def bundled_chart() -> Path:
    """Return the folder of this version's chart: in the package, or in the checkout.

    :raises Usage: there is no chart in either place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "chart", package.parents[1] / "helm" / "runkeys"):
        if (folder / "Chart.yaml").is_file():
            return folder
    raise Usage("this installation has no chart; name one: --chart FOLDER")
