"""`runkeys run`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from runkeys._text.words import shell
from runkeys.cli._documents import read_documents, read_json
from runkeys.cli._framework import AFTER_DASHES, INTERRUPTED, ProgramCommand, Settings, command
from runkeys.cli._input import read_text
from runkeys.cli._output import print_object, run_name
from runkeys.cli._printing import echo
from runkeys.cli.show import WAIT, follow, judge, show
from runkeys.client import Client
from runkeys.client.submission import TTL, assignments, check_shape, from_command, parse_run
from runkeys.mapping import SECRETS, add_mapping
from runkeys.problems import Invalid, NotFound, Usage

Json = dict[str, Any]


@command(
    cls=ProgramCommand,
    epilog="Secrets are looked up in the bindings given with --binding. Without --binding, they are looked up"
    " in your personal binding and in all shared bindings of the namespace. Exit codes: 0 success, 1 the"
    " run failed, 2 the command line is wrong, 3 something was not found, 4 a right is missing, 5 the"
    " manifest is wrong, 6 the cluster does not answer, 7 timeout, 8 the run has finished but one of its"
    " Secrets may still exist, 130 interrupted: the run continues.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[FILE.py] [-- COMMAND...]")
@click.option("-f", "--file", type=click.Path(), help="Manifest of a WorkflowRun. - reads standard input.")
@click.option("--name", help="Name of the run. Default: the manifest's name, else a generated name.")
@click.option("--image", help="Image for a run with one task.")
@click.option("--env", "env", multiple=True, metavar="NAME=value", help="Plain variable. Not for secrets.")
@click.option(
    "--secret",
    "secret",
    multiple=True,
    metavar="NAME=secret-name",
    help="Variable with the value of this secret.",
)
@click.option("--binding", "binding", multiple=True, metavar="NAME", help="Binding to look up secrets in.")
@click.option("-l", "--label", "label", multiple=True, metavar="KEY=value", help="Label of the run.")
@click.option("--service-account", metavar="NAME", help="Service account of the pods.")
@click.option(
    "--input",
    "input_",
    metavar="@FILE",
    help=f"JSON for the tasks. @- reads standard input. Values under {SECRETS} are sealed before they are sent.",
)
@click.option(
    "--map",
    "map_",
    multiple=True,
    metavar="[TASK=]MAPPING",
    help=f'Fields of {SECRETS} for a task: {{ "parameter": secret_value("field") }}.',
)
@click.option("--wait", is_flag=True, help=WAIT)
@click.option("--timeout", type=click.FloatRange(0), help="Maximum seconds to wait.")
@click.option("--dry-run", is_flag=True, help="Print the run that would be sent, and start nothing.")
@click.option("--local", is_flag=True, help="Run the tasks as processes on this machine, without a cluster.")
@click.option(
    "--env-file", type=click.Path(), help="With --local: file with the secrets, one NAME=value on each line."
)
@click.option(
    "--binding-file",
    "binding_files",
    multiple=True,
    type=click.Path(),
    help="With --local: file with SecretBindings, for templates and stores. Those beside the run in -f are used too.",
)
def run(
    settings: Settings,
    words: tuple[str, ...],
    *,
    file: str | None,
    name: str | None,
    image: str | None,
    env: tuple[str, ...],
    secret: tuple[str, ...],
    binding: tuple[str, ...],
    label: tuple[str, ...],
    service_account: str | None,
    input_: str | None,
    map_: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    dry_run: bool,
    local: bool,
    env_file: str | None,
    binding_files: tuple[str, ...],
) -> None:
    """Start a run from a manifest, from a command in an image, or from a Python file.

    \b
      runkeys run -f workflow.yaml --input @in.json --wait
      runkeys run --image python:3.13-slim --secret api_token=github-token -- python -c '…'
      runkeys run app.py --image python:3.13-slim --secret API_TOKEN=github-token
      runkeys run --local -f workflow.yaml --env-file .env
    """  # noqa: D301 -- click wants the character itself
    if env_file is not None and not local:
        raise Usage(
            "--env-file is for --local; in the cluster secrets come from bindings: runkeys secret set"
        )
    if binding_files and not local:
        raise Usage("--binding-file is for --local; in the cluster the bindings are those of the namespace")
    if file is not None:
        unwanted = [
            option
            for option, given in (
                ("--image", image),
                ("--env", env),
                ("--secret", secret),
                ("a command", words),
                ("--service-account", service_account),
            )
            if given
        ]
        if unwanted:
            raise Usage(f"{', '.join(unwanted)} cannot be combined with -f; write it into the manifest")
        manifest = _from_file(file, name, binding, label)
        client = None if local else settings.client()
    else:
        variables, wanted = assignments(env, "--env", "value"), assignments(secret, "--secret", "secret-name")
        source, rest = _source(words, click.get_current_context().meta[AFTER_DASHES])
        if image is None and not local:
            raise Usage("give a manifest (-f), or --image with a command after --")
        if source is None and not rest and local:
            raise Usage(
                "give a command after --, or a Python file: a local run does not know the command of an image"
            )
        client = None if local else settings.client()
        manifest = from_command(
            name or "",
            image or "local",
            rest,
            env=variables,
            secrets_of=wanted,
            bindings=_bindings(client, binding, list(wanted.values())),
            labels=_labels(label),
            service_account=service_account,
            source=source,
        )
    if input_ is not None:
        _add_input(manifest, input_)
    for mapping in map_:
        add_mapping(manifest, mapping)
    _say_unused(settings, manifest)
    if client is None:
        from runkeys.cli.locally import run_locally

        found = [
            item
            for path in (*binding_files, *([file] if file is not None else []))
            for item in _bindings_in(path)
        ]
        run_locally(settings, manifest, env_file, found, dry_run=dry_run)
        return
    _start(settings, client, manifest, wait=wait, timeout=timeout, dry_run=dry_run)


def _start(
    settings: Settings, client: Client, manifest: Json, *, wait: bool, timeout: float | None, dry_run: bool
) -> None:
    made = client.prepare(manifest, settings.say)
    if dry_run:
        if settings.output in ("table", "wide"):
            settings.output = "yaml"
        # The API server has the last word, and answers without making anything.
        client.create(client.path("workflowruns"), made, dryRun="All")
        print_object(settings, made) if settings.output != "name" else echo(made["metadata"]["name"])
        return
    created = client.create(client.path("workflowruns"), made)
    name = made["metadata"]["name"]
    if not wait:
        run = parse_run(created)  # not read again: the user may only have the right to create runs
        echo(run_name(run)) if settings.output in ("table", "wide") else show(settings, run)
        settings.say(f"follow it: {shell('runkeys', 'watch', name)}, {shell('runkeys', 'logs', '-f', name)}")
        return
    settings.say(f"started {name}")
    try:
        judge(follow(settings, client, name, timeout))
    except KeyboardInterrupt:
        stop = shell("runkeys", "cancel", name)
        echo(f"\nInterrupted. Run {name} is not stopped by that; to stop it: {stop}", err=True)
        sys.exit(INTERRUPTED)


def read_manifests(path: str) -> list[Any]:
    """Return the documents of a file, of lists in it, or of a folder's files."""
    return [
        item for file in _files_of(path) for found in _documents_of(file, path) for item in _items_of(found)
    ]


def read_manifest(path: str) -> Json:
    """Return the only WorkflowRun in a file, in a list in it, or in a folder's files."""
    return only_run(path, read_manifests(path))


def only_run(path: str, documents: list[Any]) -> Json:
    """Return the only WorkflowRun among the documents of a path."""
    runs = [item for item in documents if isinstance(item, dict) and item.get("kind") == "WorkflowRun"]
    if len(runs) == 1:
        return dict(runs[0])
    if runs:
        raise Invalid(
            f"{path} has {len(runs)} WorkflowRuns, and `run` starts one: give a file with one of them"
        )
    kinds = sorted({str(item.get("kind")) for item in documents if isinstance(item, dict) and "kind" in item})
    there = f"only {', '.join(kinds)}" if kinds else "nothing that says `kind: WorkflowRun`"
    raise Invalid(f"{path} has no WorkflowRun, {there}")


def _bindings_in(path: str) -> list[Json]:
    """Return the SecretBindings in a file, or in a folder's files. Standard input was read already."""
    texts = [(file, read_text(file)) for file in _files_of(path) if file != "-"]
    documents = [
        found for file, text in texts if "SecretBinding" in text for found in read_documents(file, text)
    ]
    items = [item for found in documents for item in _items_of(found)]
    return [dict(item) for item in items if isinstance(item, dict) and item.get("kind") == "SecretBinding"]


def _files_of(path: str) -> list[str]:
    """Return the file; or the manifests in a folder, as `kubectl apply -f folder/` takes them."""
    if not Path(path).is_dir():
        return [path]
    return [
        str(file)
        for file in sorted(Path(path).iterdir())
        if file.suffix in (".yaml", ".yml", ".json") and file.is_file()
    ]


def _documents_of(file: str, path: str) -> list[Any]:
    text = read_text(file)
    if file != path and "WorkflowRun" not in text:
        return []  # of a folder's files, those of other tools need not be readable
    return read_documents(file, text)


def _items_of(document: Any) -> list[Any]:
    if isinstance(document, dict) and document.get("kind") in (
        "List",
        "WorkflowRunList",
        "SecretBindingList",
    ):
        items = document.get("items")
        return items if isinstance(items, list) else []
    return [document]


def _from_file(path: str, name: str | None, binding: tuple[str, ...], label: tuple[str, ...]) -> Json:
    manifest = read_manifest(path)
    check_shape(manifest)
    metadata, spec = dict(manifest.get("metadata") or {}), manifest.get("spec")
    if name is not None:
        metadata["name"] = name
    if label:
        metadata["labels"] = {**(metadata.get("labels") or {}), **_labels(label)}
    manifest["metadata"] = metadata
    if binding and isinstance(spec, dict):
        spec["bindings"] = [*(spec.get("bindings") or []), *({"name": item} for item in binding)]
    if isinstance(spec, dict) and metadata.get("name") is None:
        # No tool applies it again, so it may be deleted by itself.
        spec.setdefault("ttlSecondsAfterFinished", TTL)
    return manifest


def _source(words: tuple[str, ...], after_dashes: int) -> tuple[tuple[str, str] | None, list[str]]:
    """Return the Python file to send, if the words begin with one, and the remaining words.

    :param after_dashes: how many of the words are a command. A file that is not here may be one of the image.
    """
    before = words[: len(words) - after_dashes]
    if words and words[0].endswith(".py") and Path(words[0]).is_file():
        return (Path(words[0]).name, read_text(words[0])), list(words[1:])
    if before and before[0].endswith(".py"):
        raise NotFound(f"there is no file {before[0]}; a command in the image comes after --")
    if len(before) > 1 and before[0] == "app" and before[1].endswith(".py"):
        raise NotFound(f"there is no file app; leave this word out: {shell('runkeys', 'run', *before[1:])} …")
    return None, list(words)


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Invalid("--label must be KEY=value")
        found[key] = value
    return found


def _bindings(client: Client | None, named: tuple[str, ...], wanted: list[str]) -> list[Mapping[str, Any]]:
    """Return the bindings for a run: those that have the secrets. Each secret is found before anything starts."""
    if client is None:
        return [{"name": name} for name in named] or ([{"personal": True}] if wanted else [])
    if not wanted:
        return [{"name": name} for name in named]
    me = client.requester["username"]
    known = {
        item.metadata.name: item
        for item in client.bindings()
        if item.metadata.name in named
        or (not named and (item.spec.owner is None or item.spec.owner.username == me))
    }
    missing = [name for name in named if name not in known]
    if missing:
        raise NotFound(f"there is no SecretBinding {', '.join(missing)} in namespace {client.namespace}")
    chosen: dict[str, Mapping[str, Any]] = {}
    for secret in wanted:
        hits = [name for name, item in known.items() if item.entry(secret) is not None]
        own = [name for name in hits if known[name].spec.owner is not None]
        if not hits:
            offered = sorted({entry.name for item in known.values() for entry in item.spec.secrets})
            raise NotFound(
                f"there is no secret {secret!r} in {', '.join(known) or 'any binding'} of namespace"
                f" {client.namespace}; there are: {', '.join(offered) or 'none'}. Nothing was started"
            )
        if len(hits) > 1 and not own:
            raise Invalid(
                f"secret {secret!r} is in several bindings: {', '.join(hits)}; say which with --binding"
            )
        name = own[0] if own else hits[0]
        chosen[name] = {"personal": True} if own else {"name": name}
    return list(chosen.values())


def _say_unused(settings: Settings, manifest: Json) -> None:
    """Say which values were given and no task uses. They are most likely a mistake, but do no harm."""
    check_shape(manifest)
    spec = manifest.get("spec") or {}
    given, asked = (
        (spec.get("input") or {}).get(SECRETS),
        [
            item.get("input")
            for task in spec.get("tasks") or []
            for item in task.get("secrets") or []
            if isinstance(item, dict)
        ],
    )
    unused = sorted(set(given) - {str(name) for name in asked}) if isinstance(given, dict) else []
    if unused:
        example = {"name": unused[0], "input": unused[0]}
        settings.say(
            f"Warning: no task uses {', '.join(unused)} of {SECRETS}. A task gets it by a line under its secrets:"
            f" - {{name: {example['name']}, input: {example['input']}}}"
        )


def _add_input(manifest: Json, text: str) -> None:
    if text.startswith("@"):
        source = text[1:]
        content = read_text(source)
    else:
        source, content = "--input", text
    given = read_json(source, content)
    spec = manifest.get("spec")
    if not isinstance(given, dict):
        raise Invalid(f"{source}: must be a JSON object")
    if source == "--input" and SECRETS in given:
        raise Usage(
            f"{SECRETS} on the command line can be seen by others on this machine, and is in your shell's"
            " history: replace the values, and give the new ones in a file (--input @in.json) or on standard input"
            " (--input @-)"
        )
    if not isinstance(spec, dict):
        raise Invalid("spec: found none; a run needs one with its tasks")
    spec["input"] = {**(spec.get("input") or {}), **given}
