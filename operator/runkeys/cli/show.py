"""`runkeys status`, `watch` and `logs`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runkeys._text.words import line, shell
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import (
    as_list,
    colors,
    now,
    print_lines,
    print_object,
    print_table,
    run_lines,
    run_name,
    runs_table,
)
from runkeys.cli._printing import colored, echo, log
from runkeys.client import Client, released
from runkeys.problems import NotReleased, RunFailed, TimedOut, Usage

if TYPE_CHECKING:
    from runkeys.api import WorkflowRun


WAIT = (
    "Wait until the run finishes. Exit code: 0 it succeeded, 1 it failed or was cancelled, 7 --timeout was reached,"
    " 8 a Secret of it may still exist."
)


@command()
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="List the runs of all namespaces.")
def status(settings: Settings, name: str | None, *, all_namespaces: bool) -> None:
    """Show the tasks of run NAME and the exposure of their secrets. Without NAME, list all runs.

    TIME is how long a task's attempts took in all, EXPOSED how long its values were in the cluster.
    """
    if name is not None and all_namespaces:
        raise Usage("give either the name of a run, or -A for the runs of all namespaces")
    client = settings.client()
    if name is not None:
        show(settings, client.get(name))
        return
    runs = client.runs(all_namespaces=all_namespaces)
    if settings.output == "name":
        for run in runs:
            echo(run_name(run))
    elif settings.output in ("json", "yaml"):
        print_object(settings, as_list([run.to_wire() for run in runs]))
    elif runs:
        print_table(settings, *runs_table(runs, now(), namespaces=all_namespaces))
    else:
        settings.say("no runs" if all_namespaces else f"no runs in namespace {client.namespace}")


def show(settings: Settings, run: WorkflowRun) -> None:
    """Print a run in the chosen output format."""
    if settings.output == "name":
        echo(run_name(run))
    elif settings.output in ("json", "yaml"):
        print_object(settings, wire(run))
    else:
        print_lines(settings, run_lines(run, now(), wide=settings.output == "wide"))


def wire(run: WorkflowRun) -> dict[str, object]:
    """Return the run as Kubernetes writes it, with the fields of its metadata that Runkeys reads."""
    raw = run.to_wire()
    raw["metadata"] = {key: value for key, value in raw["metadata"].items() if value not in ("", {}, [], 0)}
    return raw


@command()
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(0), help="Maximum seconds to follow it.")
def watch(settings: Settings, name: str, timeout: float | None) -> None:
    """Follow run NAME until it finishes, and say what keeps it waiting.

    Exit codes: 0 it succeeded, 1 it failed or was cancelled, 7 timeout, 8 a Secret of it may still exist.
    """
    client = settings.client()
    judge(follow(settings, client, name, timeout))


def follow(settings: Settings, client: Client, name: str, timeout: float | None) -> WorkflowRun:
    """Show a run's changes until it has finished, and return it. On a terminal, the table is redrawn in place."""
    plain = settings.output in ("json", "yaml", "name")
    if plain or settings.quiet or not sys.stdout.isatty():
        run = _follow_lines(settings, client, name, timeout, silent=plain or settings.quiet)
    else:
        run = _follow_live(settings, client, name, timeout)
    if plain:
        show(settings, run)
    return run


def _follow_lines(
    settings: Settings, client: Client, name: str, timeout: float | None, *, silent: bool
) -> WorkflowRun:
    told: dict[str, str] = {}

    def say(of: str, words: str) -> None:
        """Print it once, and again when it is another."""
        if not silent and told.get(of) != words:
            told[of] = words
            echo(line(words))

    for run in client.watch(name, timeout=timeout):
        for task in run.status.tasks:
            reason = f" ({task.reason})" if task.reason and task.reason != task.state else ""
            say(task.name, f"{task.name}: {task.state}{reason}")
            # At the end the table has them all.
            if task.message and not run.status.finished:
                say(f"{task.name}/", f"{task.name}: {task.message}")
        if not run.status.finished:
            say("/", _at_rest(run)) if run.spec.suspend else told.pop("/", None)
        if run.status.finished:
            if not silent:
                show(settings, run)
            return run
    raise TimedOut(f"run {name} has not finished")


def _at_rest(run: WorkflowRun) -> str:
    name = run.metadata.name
    return f"run {name} is suspended; to continue it: {shell('runkeys', 'resume', name)}"


def _follow_live(settings: Settings, client: Client, name: str, timeout: float | None) -> WorkflowRun:
    from rich.live import Live
    from rich.text import Text

    def drawn(run: WorkflowRun) -> Text:
        lines = run_lines(run, now(), wide=settings.output == "wide")
        return Text.from_ansi("\n".join(colored(text, colors(settings)) for text in lines))

    with Live(auto_refresh=False) as live:
        for run in client.watch(name, timeout=timeout):
            live.update(drawn(run), refresh=True)
            if run.status.finished:
                return run
    raise TimedOut(f"run {name} has not finished")


def judge(run: WorkflowRun) -> None:
    """Raise RunFailed or NotReleased if a finished run did not succeed or may still have a Secret."""
    if not released(run):
        raise NotReleased(
            f"run {run.metadata.name} has finished, but one of its Secrets may still exist; see its status"
        )
    if run.status.phase != "Succeeded":
        raise RunFailed(f"run {run.metadata.name} is {run.status.phase}")


@command()
@click.argument("name")
@click.option(
    "-t", "--task", help="Only this task. Default: all tasks, with the task's name before each line."
)
@click.option("-c", "--container", help="Container of the pod. Default: the first container.")
@click.option("-f", "--follow", is_flag=True, help="Follow the logs until the run finishes.")
def logs(settings: Settings, name: str, task: str | None, container: str | None, *, follow: bool) -> None:
    """Print the logs of the tasks of run NAME."""
    client = settings.client()
    run = client.get(name)
    unmasked = any(item.secrets for item in run.spec.tasks if task in (None, item.name))
    several = task is None and len(run.spec.tasks) > 1
    for said in client.logs(name, task=task, container=container, follow=follow):
        if unmasked:
            settings.say(
                "This is what the pods wrote: values are masked only in programs that read them with the runkeys"
                " library."
            )
            unmasked = False
        log(f"[{said.task}] {said.text}" if several else said.text)
