"""`runkeys openapi`."""

from __future__ import annotations

from dataclasses import replace

import click

from runkeys import masking
from runkeys._task.signature import load
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import print_object
from runkeys.openapi import describe
from runkeys.problems import Invalid


@command()
@click.argument("entrypoint", metavar="MODULE:FUNCTION")
@click.option("--title", help="Title of the document. Default: the package's name.")
@click.option("--api-version", default="1", show_default=True, help="Version of the service.")
def openapi(settings: Settings, entrypoint: str, title: str | None, api_version: str) -> None:
    """Print the OpenAPI description of a service, e.g. `runkeys openapi src.program:run`.

    The command imports the module. It looks in the current folder first.
    """
    try:
        document = describe(load(entrypoint), title, api_version)
    except ValueError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 -- it is the service that raises it
        problem = f"{entrypoint} cannot be imported: {type(error).__name__}: {masking.masked(str(error))}"
    else:
        # It is a document in any case, never a table.
        print_object(settings if settings.output == "yaml" else replace(settings, output="json"), document)
        return
    raise Invalid(problem)
