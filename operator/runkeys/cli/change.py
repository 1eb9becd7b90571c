"""`runkeys cancel`, `suspend`, `resume`, `delete` and `rerun`."""

from __future__ import annotations

import sys

import click

from runkeys._text.words import line
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import run_name
from runkeys.cli._printing import echo
from runkeys.cli.show import follow, judge, show
from runkeys.client.submission import again
from runkeys.problems import Invalid, Usage


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def cancel(settings: Settings, names: tuple[str, ...]) -> None:
    """Stop runs and take their secrets away, for good."""
    client = settings.client()
    for name in names:
        run = client.get(name)
        if run.status.finished:
            settings.say(f"run {name} is over already: {run.status.phase}")
            continue
        client.cancel(name)
        _told(settings, name, "is being cancelled")


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def suspend(settings: Settings, names: tuple[str, ...]) -> None:
    """Stop what runs and take the secrets away, until `resume`. What is stopped does not count as a failure."""
    client = settings.client()
    for name in names:
        if client.get(name).status.finished:
            raise Invalid(f"run {name} is over, so there is nothing to suspend")
        client.suspend(name)
        _told(settings, name, "is being suspended")


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def resume(settings: Settings, names: tuple[str, ...]) -> None:
    """Go on with runs that were suspended."""
    client = settings.client()
    for name in names:
        if not client.get(name).spec.suspend:
            raise Invalid(f"run {name} is not suspended")
        client.resume(name)
        _told(settings, name, "goes on")


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(settings: Settings, names: tuple[str, ...], *, yes: bool) -> None:
    """Delete runs, with their Jobs and logs. What still runs is stopped, and its secrets go."""
    client = settings.client()
    running = [name for name in names if not client.get(name).status.finished]
    if running and not yes:
        if not sys.stdin.isatty():
            raise Usage(f"{', '.join(running)} is not over yet; give --yes to delete it all the same")
        click.confirm(f"{line(', '.join(running))} is not over yet. Delete it?", abort=True, err=True)
    for name in names:
        client.delete(name)
        _told(settings, name, "deleted")


@command()
@click.argument("name")
@click.option("--from-failed", is_flag=True, help="Leave out the tasks that succeeded.")
@click.option("--wait", is_flag=True, help="Wait for the end of the new run.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds to wait at most.")
def rerun(settings: Settings, name: str, *, from_failed: bool, wait: bool, timeout: float | None) -> None:
    """Start a new run like NAME, with --from-failed of what did not succeed in it.

    Outputs of tasks that are left out are handed on to those that need them. Values that were brought along for
    the old run are gone, so it cannot be repeated without them.
    """
    client = settings.client()
    run = client.get(name)
    if not run.status.finished:
        raise Invalid(f"run {name} is not over yet; wait for it, or cancel it")
    raw = client.read(client.path("workflowruns", name))
    made = client.submit(again(run, raw, from_failed=from_failed))
    if not wait:
        show(settings, made) if settings.output != "table" else echo(run_name(made))
        return
    settings.say(f"started {made.metadata.name}")
    judge(follow(settings, client, made.metadata.name, timeout))


def _told(settings: Settings, name: str, what: str) -> None:
    """Say what was done; for programs only the name."""
    if settings.output == "name":
        echo(f"workflowrun.runkeys.dev/{name}")
    else:
        settings.say(f"run {name} {what}")
