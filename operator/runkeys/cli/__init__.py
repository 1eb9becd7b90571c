"""The command line. To start quickly, it imports a command's module and its dependencies only when the command runs."""

from __future__ import annotations

import sys

from runkeys.cli._framework import INTERRUPTED, LazyGroup, settings_of
from runkeys.cli._printing import echo

COMMANDS = {
    "run": ("runs", "Start a run in the cluster, or locally with --local."),
    "status": ("show", "Show a run and the exposure of its secrets, or list all runs."),
    "pods": ("pods", "List the pods that asked for secrets themselves."),
    "watch": ("show", "Follow a run until it finishes."),
    "logs": ("show", "Print the logs of a run's tasks."),
    "cancel": ("change", "Stop a run for good and delete its Secrets."),
    "suspend": ("change", "Stop a run for now and delete its Secrets."),
    "resume": ("change", "Continue a suspended run."),
    "delete": ("change", "Delete runs and all that was created for them."),
    "rerun": ("change", "Start a run again, or only its tasks that did not succeed."),
    "plan": ("preview", "Show what a run would do and what prevents it, without changes."),
    "who-can": ("preview", "Show who may use or reveal a binding, and which runs and pods it admits."),
    "secret": ("secret", "Set, list, print and delete your own secrets, or those of a binding."),
    "seal": ("seal", "Seal values for Git, or check that all values are sealed."),
    "reseal": ("seal", "Seal values of older keys again with the newest key."),
    "kv": ("kv", "Store JSON values by key, for use by later runs."),
    "openapi": ("openapi", "Print the OpenAPI description of a service."),
    "install": ("install", "Install or upgrade the operator."),
    "doctor": ("doctor", "Find out why something does not work."),
    "init": ("init", "Create a small project that runs at once."),
    "config": ("config", "Show the configuration, and trust a cluster's key."),
    "completion": ("completion", "Print the completion script of a shell."),
}
"""Commands by name: the module, and the help in one line."""

cli = LazyGroup(
    "runkeys",
    commands_of=COMMANDS,
    help="Run workflows that have their secrets for exactly as long as they need them.",
)


def main(prog_name: str = "runkeys") -> None:
    """Run the command line and end the process with its exit code."""
    import click

    from runkeys.problems import Invalid, Problem, Usage

    try:
        code = cli.main(prog_name=prog_name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except Problem as error:
        if str(error):
            echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output has closed it, e.g. `| head`. Python would complain again when it flushes.
        sys.stdout = None
        sys.exit(0)
    except Exception as error:
        import os

        if isinstance(error, OSError) and error.filename is not None:
            echo(f"Error: {error.filename}: {error.strerror}", err=True)
            sys.exit(Invalid.exit_code)
        if isinstance(error, UnicodeEncodeError) and any(not _is_utf8(word) for word in sys.argv):
            echo("Error: a word of the command line is not UTF-8 text", err=True)
            sys.exit(Usage.exit_code)
        if os.environ.get("RUNKEYS_TRACEBACK"):
            raise
        # Without its text: that may quote a value.
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else ""
        echo(
            f"Error: this is a bug in runkeys: {type(error).__name__} at {place}. Please report it."
            " RUNKEYS_TRACEBACK=1 shows the whole traceback, which may contain your values",
            err=True,
        )
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _is_utf8(word: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in word)


def kubectl_main() -> None:
    """Run `kubectl runkeys …`."""
    main("kubectl runkeys")


def kubectl_complete() -> None:
    """Complete `kubectl runkeys …`. kubectl calls this."""
    from runkeys.cli.completion import for_kubectl

    for_kubectl(sys.argv[1:])


__all__ = ["COMMANDS", "cli", "kubectl_complete", "kubectl_main", "main", "settings_of"]
