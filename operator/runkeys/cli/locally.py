"""`runkeys run --local`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runkeys._text.words import line
from runkeys.api import WorkflowRun
from runkeys.cli._env_file import read_env_file
from runkeys.cli._framework import INTERRUPTED, Settings
from runkeys.cli._output import print_object
from runkeys.cli._printing import echo, log
from runkeys.cli.show import show
from runkeys.local import LocalRun, as_stored
from runkeys.problems import RunFailed


def run_locally(
    settings: Settings,
    manifest: dict[str, Any],
    env_file: str | None,
    bindings: Sequence[Mapping[str, Any]] = (),
    *,
    dry_run: bool,
) -> None:
    """Run a manifest as processes and end with the run's result.

    Values come from the file. Values that are not in the file come from the environment.

    :param bindings: manifests of SecretBindings, for templates and stores.
    :raises RunFailed: the run did not succeed.
    """
    tasks = as_stored(manifest)[0].spec.tasks
    exact = {item.env for task in tasks for item in task.secrets}
    values = {name: text for name, text in os.environ.items() if name.startswith("SECRET_") or name in exact}
    if env_file is not None:
        values |= _read(settings, env_file)
    several = len(tasks) > 1

    def print_line(task: str, text: str) -> None:
        log(f"[{task}] {text}" if several else text, err=_is_data(settings))

    told: dict[str, str] = {}

    def changed(run: WorkflowRun) -> None:
        for task in run.status.tasks:
            if several and told.get(task.name, "Pending") != task.state:
                told[task.name] = task.state
                settings.say(f"{task.name}: {task.state}")

    local = LocalRun(manifest, values, bindings=bindings, print_line=print_line, changed=changed)
    if dry_run:
        print_object(settings, local.shown(manifest))
        return
    for note in local.notes:
        settings.say(note)
    interrupts: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupts.append(number)
        if local.revoking:
            settings.say("Leases are being revoked, which takes some seconds at most.")
            return
        if len(interrupts) > 1:
            raise KeyboardInterrupt
        settings.say(
            "Interrupted: the run's tasks are being stopped, within their grace periods. Interrupt again to kill them."
        )
        local.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        run = local.execute()
    finally:
        for text in local.left:
            echo(line(f"Warning: {text}"), err=True)
    show(settings, run)
    if interrupts:
        sys.exit(INTERRUPTED)
    if run.status.phase != "Succeeded":
        raise RunFailed(f"run {run.metadata.name} is {run.status.phase}")


def _is_data(settings: Settings) -> bool:
    """Return whether standard output is for programs. Then the tasks' output goes to standard error."""
    return settings.output not in ("table", "wide")


def _read(settings: Settings, path: str) -> dict[str, str]:
    file, found = Path(path), read_env_file(path)
    if _is_kept_by_git(file):
        echo(
            f"Warning: git does not ignore {path}, so the secrets in it may be committed; add it to .gitignore",
            err=True,
        )
    if settings.verbose:
        settings.say(f"{path}: {', '.join(found)}")
    return found


def _is_kept_by_git(file: Path) -> bool:
    """Return whether the file is in a Git work tree and Git does not ignore it."""
    if not file.is_file():
        return False
    try:
        done = subprocess.run(
            ["git", "check-ignore", "-q", file.name],
            cwd=file.resolve().parent,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 1  # 0: it is ignored; 128: there is no work tree
