"""The commands' table, and the frame around each of them.

A command is a module `securelink.cli.NAME` with a value `app`, made by `command_app`, and a row in
`COMMANDS`. It is imported when it is called, or when the help lists it. In the module::

    app = command_app()

    @app.command(epilog=examples("securelink send hello"))
    def send(text: ..., json: Json = False) -> ExitCode | None:
        \"""Deliver one text.\"""

For a command with subcommands, decorate what runs without any of them with
`@app.callback(invoke_without_command=True)` and the others with `@app.command()`.

A command ends by returning None or an `ExitCode`, or by raising a `SecurelinkError`; what is
printed for that, and for everything else that can happen, is in `main`.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from securelink.cli.failures import wrong_usage
from securelink.errors import ExitCode, UsageError

if TYPE_CHECKING:
    # typer carries its own click, and has no public names for these.
    from typer._click import Command, Context, HelpFormatter

COMMANDS: tuple[str, ...] = (
    "serve",
    "send",
    "receive",
    "invite",
    "join",
    "peers",
    "inbox",
    "outbox",
    "forward-port",
    "doctor",
    "id",
    "config",
)
"""In the order in which the help lists them."""

_WHOLE_SENTENCE = 1000
"""Characters: longer than any, so that the help wraps a command's sentence, and cuts none."""

_LISTS = ("list", "ls")


def command_app() -> typer.Typer:
    """Return the app of one command module."""
    return typer.Typer(
        cls=_Group,
        add_completion=False,
        rich_markup_mode=None,  # plain help: it needs no rich, and is the same in a pipe
        pretty_exceptions_enable=False,
    )


def examples(*lines: str) -> str:
    """Return the end of a command's help that shows *lines*, unwrapped."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


class _Group(TyperGroup):
    """A command with subcommands, of which one runs instead of the command, not after it."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """List the commands, each with the whole first sentence of its help."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(_WHOLE_SENTENCE))
                    for name, command in commands
                    if command is not None
                ]
            )

    def invoke(self, ctx: Context) -> Any:
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            # An option without its value, or with one too many, does not say whose it is.
            if getattr(error, "ctx", None) is not None or ctx.invoked_subcommand is None:
                raise
            raise wrong_usage(error, f"{ctx.command_path} {ctx.invoked_subcommand}") from None

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        name = args[0]
        names = self.list_commands(ctx)
        if name in names:
            for option in ctx.params:
                source = ctx.get_parameter_source(option)
                if source is not None and source.name == "COMMANDLINE":
                    raise UsageError(
                        f"options of {name!r} stand after it",
                        hint=f"try: {ctx.command_path} --help",
                    )
            self.callback = None
            return super().resolve_command(ctx, args)
        above = ctx.command_path.partition(" ")[2]
        typed = f"{above} {name}".strip()
        nearest = difflib.get_close_matches(name, names, n=1)
        message = f"no command {typed!r}"
        if name == "help":
            message += f"; did you mean '{ctx.command_path} --help'?"
        elif name in _LISTS and above:
            # All of them list by themselves.
            message += f"; did you mean {ctx.command_path!r}?"
        elif nearest:
            message += f"; did you mean {f'{above} {nearest[0]}'.strip()!r}?"
        raise UsageError(message, hint=f"try: {ctx.command_path} --help")


class _Root(_Group):
    """The program: its commands are modules, imported when they are needed."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            module = importlib.import_module(f"securelink.cli.{cmd_name.replace('-', '_')}")
            command = get_command(module.app)
            command.name = cmd_name
            _accept_debug(command)
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)


def _accept_debug(command: Command) -> None:
    """Let *command* and all below it take `--debug`, which `main` acts on."""
    command.params.append(
        TyperOption(
            param_decls=["--debug"],
            is_flag=True,
            default=False,
            expose_value=False,
            help="Show the traceback of an error.",
        )
    )
    for below in getattr(command, "commands", {}).values():
        _accept_debug(below)


def _show_version(wanted: bool) -> None:
    if wanted:
        from securelink import __version__

        typer.echo(f"securelink {__version__}")
        raise typer.Exit


_root = typer.Typer(
    cls=_Root, name="securelink", rich_markup_mode=None, pretty_exceptions_enable=False
)


@_root.callback(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "securelink serve                   on the machine that should receive",
        "securelink join slinv1...          on the other one, once",
        "securelink send hello              from then on",
        "echo hello | securelink send -     from a script",
    ),
)
def _without_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> ExitCode:
    """Send messages, encrypted, straight from one machine to another."""
    typer.echo(context.get_help(), err=True)
    return ExitCode.USAGE


def program() -> Command:
    """Return the whole command line, ready to be called."""
    root = get_command(_root)
    _accept_debug(root)
    return root
