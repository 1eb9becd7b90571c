"""`runkeys cancel`, `suspend`, `resume`, `delete` and `rerun`."""

from __future__ import annotations

import sys

import click

from runkeys._text.words import line
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import run_name
from runkeys.cli._printing import echo
from runkeys.cli.show import WAIT, follow, judge, show
from runkeys.client.submission import again
from runkeys.problems import Invalid, Usage


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def cancel(settings: Settings, names: tuple[str, ...]) -> None:
    """Stop runs for good and delete the Secrets created for them."""
    client = settings.client()
    for name in names:
        run = client.get(name)
        if run.status.finished:
            settings.say(f"run {name} has already finished: {run.status.phase}")
            continue
        client.cancel(name)
        _told(settings, name, "is being cancelled")


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def suspend(settings: Settings, names: tuple[str, ...]) -> None:
    """Stop runs until `resume`, and delete the Secrets created for them. Stopped attempts do not count as failures."""
    client = settings.client()
    for name in names:
        if client.get(name).status.finished:
            raise Invalid(f"run {name} has finished, so there is nothing to suspend")
        client.suspend(name)
        _told(settings, name, "is being suspended")


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def resume(settings: Settings, names: tuple[str, ...]) -> None:
    """Continue suspended runs."""
    client = settings.client()
    for name in names:
        if not client.get(name).spec.suspend:
            raise Invalid(f"run {name} is not suspended")
        client.resume(name)
        _told(settings, name, "continues")


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def delete(settings: Settings, names: tuple[str, ...], *, yes: bool) -> None:
    """Delete runs with their Jobs and logs. Runs that have not finished are stopped, and their Secrets are deleted."""
    client = settings.client()
    running = [name for name in names if not client.get(name).status.finished]
    if running and not yes:
        if not sys.stdin.isatty():
            raise Usage(f"{', '.join(running)} not finished yet; give --yes to delete anyway")
        click.confirm(f"{line(', '.join(running))} not finished yet. Delete anyway?", abort=True, err=True)
    for name in names:
        client.delete(name)
        _told(settings, name, "deleted")


@command()
@click.argument("name")
@click.option("--from-failed", is_flag=True, help="Leave out the tasks that succeeded, except Always tasks.")
@click.option("--wait", is_flag=True, help=WAIT)
@click.option("--timeout", type=click.FloatRange(0), help="Maximum seconds to wait.")
def rerun(settings: Settings, name: str, *, from_failed: bool, wait: bool, timeout: float | None) -> None:
    """Start a new run like NAME. With --from-failed, leave out the tasks that succeeded, except Always tasks.

    Later tasks still get the outputs of tasks that are left out. A run whose tasks use values of its sealedInput cannot
    be started again, because these values were removed when it finished.
    """
    client = settings.client()
    run = client.get(name)
    if not run.status.finished:
        raise Invalid(f"run {name} has not finished yet; wait for it, or cancel it")
    raw = client.read(client.path("workflowruns", name))
    made = client.submit(again(run, raw, from_failed=from_failed))
    if not wait:
        show(settings, made) if settings.output != "table" else echo(run_name(made))
        return
    settings.say(f"started {made.metadata.name}")
    judge(follow(settings, client, made.metadata.name, timeout))


def _told(settings: Settings, name: str, what: str) -> None:
    """Print what was done, or, with `-o name`, only the run's name."""
    if settings.output == "name":
        echo(f"workflowrun.runkeys.dev/{name}")
    else:
        settings.say(f"run {name} {what}")
