"""Shared by all commands: options that can be given anywhere, and commands that are imported when they run."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from runkeys._version import __version__
from runkeys.cli._printing import echo
from runkeys.names import OPERATOR_NAMESPACE

if TYPE_CHECKING:
    from runkeys.client import Client
    from runkeys.config import Config

INTERRUPTED = 130
FORMATS = ("table", "wide", "json", "yaml", "name")

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Settings:
    """Values of the global options.

    :ivar namespace: None: the namespace of the kubeconfig's context, else ``default``.
    """

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    operator_namespace: str | None = None
    output: str = "table"
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False

    def named(self) -> Config | None:
        """Return the configuration that the options or config.toml name; None if they leave it to the kubeconfig."""
        from runkeys.config import named

        return named(self.context, self.kubeconfig)

    def operator(self) -> str:
        """Return the operator's namespace."""
        from runkeys.config import Config

        return self.operator_namespace or (self.named() or Config("")).operator_namespace

    def config(self) -> Config:
        """Return the configuration that a command uses, by the same rule as the SDK."""
        from runkeys.config import choose

        found = choose(self.context, self.kubeconfig)
        return replace(
            found,
            namespace=self.namespace or found.namespace,
            operator_namespace=self.operator_namespace or found.operator_namespace,
        )

    def client(self) -> Client:
        """Return a client for the cluster. Its modules are imported here."""
        return self.config().client()

    def say(self, text: str) -> None:
        """Print a message that is not a result: on stderr, and not with ``-q``."""
        if not self.quiet:
            echo(text, err=True)


def settings_of(context: click.Context) -> Settings:
    """Return the values of the global options, wherever they were given on the command line."""
    return context.ensure_object(Settings)


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value in (None, False) or parameter.name is None:
        return
    # The environment speaks once, at the root: it must not take back what was said before the command's name.
    said = context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    if said or context.parent is None:
        setattr(settings_of(context), parameter.name, value)


def _global(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_store, **settings)


def global_options() -> list[click.Option]:
    """Return the options of every command."""
    return [
        _global("-n", "--namespace", metavar="NAME", help="Namespace. Default: the context's namespace."),
        _global("--context", metavar="NAME", help="Context of the kubeconfig, or name in config.toml."),
        _global("--kubeconfig", type=click.Path(), help="Kubeconfig file. Default: as for kubectl."),
        _global(
            "--operator-namespace",
            metavar="NAME",
            help=f"Namespace of the operator and its public keys. Default: {OPERATOR_NAMESPACE}.",
        ),
        _global("-o", "--output", type=click.Choice(FORMATS), help="Output format. Default: table."),
        _global("-q", "--quiet", is_flag=True, help="Print only results and errors."),
        _global("-v", "--verbose", is_flag=True, help="Print more details."),
        _global(
            "--no-color", is_flag=True, envvar="NO_COLOR", help="Print without colours, even on a terminal."
        ),
    ]


class _WithGlobals(click.Command):
    """A command that also accepts the global options and lists them separately in its help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own options and the global options."""
        return [*super().get_params(ctx), *global_options()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first, then the global options."""
        shared = {option.name for option in global_options()}
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                (common if parameter.name in shared else own).append(record)
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        with formatter.section("Global options"):
            formatter.write_dl(common)


class Command(_WithGlobals):
    """A command."""


AFTER_DASHES = "runkeys.cli.after-dashes"
"""Under this key of a click context's ``meta``: how many of the words stood after ``--``."""


class ProgramCommand(Command):
    """A command whose words end with a program's own, after ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words. An option that is not known is most likely one of the program."""
        ctx.meta[AFTER_DASHES] = len(args) - args.index("--") - 1 if "--" in args else 0
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option, told = error.option_name, error.format_message()
        raise click.UsageError(
            f"{told} If it is for your program, write -- before the program's own arguments:"
            f" runkeys {ctx.info_name} app.py … -- {option} …",
            ctx,
        )


def _context_settings() -> dict[str, Any]:
    return {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def command(cls: type[Command] = Command, **settings: Any) -> Callable[[Function], Command]:
    """Make a function a command. Its first argument is the `Settings`."""

    def make(function: Function) -> Command:
        return click.command(cls=cls, context_settings=_context_settings(), **settings)(
            click.make_pass_decorator(Settings, ensure=True)(function)
        )

    return make


class _Suggests(click.Group):
    """A group that knows what a mistyped command was meant to be."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. For a mistyped one, name the near one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if args[0].startswith("-"):
                raise
        said = f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        raise click.UsageError(said, ctx)


class Group(_WithGlobals, _Suggests):
    """A group whose commands are all in one module."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options and the group's commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class LazyGroup(_Suggests):
    """A group that imports only the command that is called."""

    def __init__(self, name: str, commands_of: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(
            name,
            params=list(global_options()),
            context_settings=_context_settings(),
            callback=None,
            **settings,
        )
        self.no_args_is_help = True
        self._commands_of = commands_of
        click.version_option(__version__, "-V", "--version", prog_name="runkeys")(self)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names in the order of the help."""
        return list(self._commands_of)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command's module and return the command; None if there is no such command."""
        if cmd_name not in self._commands_of:
            return None
        module = importlib.import_module(f"runkeys.cli.{self._commands_of[cmd_name][0]}")
        found = getattr(module, cmd_name.replace("-", "_"))
        return cast("click.Command", found)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands' names without importing any, and the completions of every command."""
        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in self._commands_of.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write all commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._commands_of.items()])
