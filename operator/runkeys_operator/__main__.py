"""`python -m runkeys_operator`: run the operator."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

# Nothing of what is imported is garbage, and looking for it among so many objects takes a sixth of the start.
gc.disable()

import click

from runkeys._version import __version__
from runkeys.api.store import AUDIENCE
from runkeys.planning.requirements import UNSEAL_RESOURCES
from runkeys_operator.app import MakeManager, serve
from runkeys_operator.commands.chart import drain, selftest
from runkeys_operator.commands.keys import keys
from runkeys_operator.controllers.manager import Manager
from runkeys_operator.errors import LoginError, StartError
from runkeys_operator.leader_election import LeaseName
from runkeys_operator.options import Options
from runkeys_operator.process import logs
from runkeys_operator.process.hardening import keep_memory_private

gc.enable()

log = logs.get_logger("runkeys_operator")

_FAILED, _USAGE, _NO_CLUSTER = 1, 2, 6
_LONGEST_IMAGE = 1024  # as a status may tell it
_QUANTITY = r"\d{1,15}(\.\d{1,9})?([EPTGMK]i|[EPTGMkmun])?"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


Command = TypeVar("Command", bound=Callable[..., Any])


class _Namespace(click.ParamType[str]):
    name = "namespace"
    envvar_list_splitter = ","

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        value = value.strip()
        if not re.fullmatch(_LABEL, value):
            self.fail(f"{value!r} is not the name of a namespace", param, ctx)
        return value


class _Audience(click.ParamType[str]):
    name = "audience"
    envvar_list_splitter = ","

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        value = value.strip()
        if not re.fullmatch(AUDIENCE, value):
            self.fail(f"{value!r} is not an audience of a SecretStore, such as bao", param, ctx)
        return value


class _LeaseName(click.ParamType[LeaseName]):
    name = "namespace/name"

    def convert(
        self, value: str | LeaseName, param: click.Parameter | None, ctx: click.Context | None
    ) -> LeaseName:
        if isinstance(value, LeaseName):
            return value
        namespace, _, name = value.strip().partition("/")
        if not re.fullmatch(_LABEL, namespace) or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name):
            self.fail(f"{value!r} is not a namespace and a name, such as runkeys-system/runkeys", param, ctx)
        return LeaseName(namespace, name)


class _Image(click.ParamType[str]):
    name = "image"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) > _LONGEST_IMAGE:
            self.fail(
                f"an image has {_LONGEST_IMAGE} characters at most, and this one {len(value)}", param, ctx
            )
        return value


class _Resources(click.ParamType[Mapping[str, Mapping[str, str]]]):
    """What is wrong here would otherwise fail every run with sealed delivery."""

    name = "JSON"

    def convert(
        self,
        value: str | Mapping[str, Mapping[str, str]],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Mapping[str, Mapping[str, str]]:
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        if not isinstance(found, Mapping):
            self.fail(f"{value!r} is not a JSON object, such as {json.dumps(UNSEAL_RESOURCES)}", param, ctx)
        for kind, amounts in found.items():
            if kind not in ("requests", "limits") or not isinstance(amounts, Mapping):
                self.fail(
                    f"{kind!r} is neither requests nor limits with a quantity for each resource", param, ctx
                )
            for resource, amount in amounts.items():
                if isinstance(amount, bool) or not re.fullmatch(_QUANTITY, str(amount)):
                    self.fail(
                        f"{kind}.{resource} is {amount!r}, which is not a quantity, such as 10m or 32Mi",
                        param,
                        ctx,
                    )
        return {kind: {name: str(amount) for name, amount in of.items()} for kind, of in found.items()}


def _option(*names: str, envvar: str = "", **settings: Any) -> Callable[[Command], Command]:
    envvar = envvar or f"RUNKEYS_{names[0].removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, envvar=envvar, show_envvar=True, show_default=True, **settings)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@_option(
    "--namespace",
    "namespaces",
    type=_Namespace(),
    multiple=True,
    envvar="RUNKEYS_NAMESPACES",
    help="Watch this namespace. Can be given several times. Default: all namespaces.",
)
@_option(
    "--kubeconfig",
    type=click.Path(),
    help="Kubeconfig file. Default: the pod's service account, else as for kubectl.",
)
@_option("--context", help="Context of the kubeconfig. Default: the current context.")
@_option("--log-format", type=click.Choice(["text", "json"]), default="text")
@_option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@_option(
    "--health-port",
    type=click.IntRange(0, 65535),
    default=8080,
    help="Port for /healthz, /readyz and /metrics. 0: off.",
)
@_option(
    "--workers",
    type=click.IntRange(1, 256),
    default=4,
    help="Number of runs that are reconciled at the same time.",
)
@_option(
    "--sweep-seconds",
    "resync_seconds",
    type=click.FloatRange(1),
    default=30.0,
    help="Seconds between two resyncs.",
)
@_option(
    "--lease",
    type=_LeaseName(),
    help="Lease for leader election. Only the operator that holds it acts. Default: there is no other operator.",
)
@_option(
    "--lease-seconds",
    type=click.IntRange(3, 3600),
    default=15,
    help="Seconds after which another operator replaces a leader that has stopped renewing the Lease.",
)
@_option(
    "--identity",
    help="Holder of the Lease: the name of this pod. No other process may use it at the same time. Default: a new one.",
    default="",
)
@_option(
    "--operator-namespace",
    help="The operator's own namespace, which holds the sealing keys. Without it, no sealed value can be opened.",
)
@_option(
    "--key-rotation-days",
    type=click.IntRange(0, 3650),
    default=30,
    help="Days after which a new sealing key is created. 0: only by `keys rotate`.",
)
@_option(
    "--sealed-delivery-image",
    type=_Image(),
    help="Image that unseals values in pods: the operator's own image. Unset: sealed delivery is disabled.",
    default="",
)
@_option(
    "--pods",
    is_flag=True,
    help="Answer pods that ask for secrets by the label runkeys.dev/secrets. Needs --sealed-delivery-image.",
)
@_option(
    "--store-audience",
    "store_audiences",
    type=_Audience(),
    multiple=True,
    envvar="RUNKEYS_STORE_AUDIENCES",
    help="Read SecretStores with this audience. Can be given several times. Default: no SecretStore is read.",
)
@_option(
    "--store-providers",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder with the sockets of providers of the Secrets Store CSI driver: NAME/NAME.sock. Unset: there are none.",
)
@_option(
    "--store-tokens",
    type=click.Path(path_type=Path),
    help="Folder with the operator's own tokens, one for each audience of a SecretStore, with which it revokes leases."
    " Default: no lease is opened.",
)
@_option(
    "--sealed-delivery-resources",
    type=_Resources(),
    help="Requests and limits of the container that unseals values in pods.",
    default=json.dumps(UNSEAL_RESOURCES),
)
@click.version_option(__version__, prog_name="runkeys-operator")
@click.pass_context
def main(
    context: click.Context,
    /,
    log_format: Literal["text", "json"],
    log_level: str,
    namespaces: tuple[str, ...],
    **options: Any,
) -> None:
    """Give the pods of workflow runs the secrets that they need, for as long as they need them."""
    context.obj = Options(namespaces=tuple(dict.fromkeys(namespaces)), **options)
    if context.invoked_subcommand is not None:
        logs.configure("warning", "text")
        return
    logs.configure(log_level, log_format)
    log.info("Runkeys operator %s", __version__)
    sys.exit(exit_code(context.obj, Manager))


main.add_command(keys)
main.add_command(drain)
main.add_command(selftest)


def exit_code(options: Options, make_manager: MakeManager) -> int:
    """Run the operator and return the process's exit code. If it ends by itself, log why."""
    try:
        asyncio.run(serve(options, make_manager))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0  # told to stop before it had started
    except LoginError as error:
        log.critical("%s", error)
        return _USAGE
    except StartError as error:
        log.critical("%s", error)
        return _NO_CLUSTER
    except Exception as error:  # noqa: BLE001 -- the last one who can say something
        log.critical("the operator stopped: %s", logs.describe(error))
        return _FAILED
    return 0


def program() -> None:
    """What this process does, with the arguments of its command line, from beginning to end."""
    gc.freeze()
    keep_memory_private()
    main()


if __name__ == "__main__":
    program()
