"""The parts of docs/ that are made from the code, each between two marks in its page.

    python tests/docs/generated.py     writes them anew

A mark is `<!-- made from the code: NAME -->`, and `<!-- end -->` ends the part.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = tuple(sorted((ROOT / "docs").glob("*.md")))

sys.path.insert(0, str(ROOT / "tests"))

from test_layers import LAYER, ROWS  # noqa: E402 - found only through the line above

from securelink import events, states  # noqa: E402 - after the path, too
from securelink.cli import failures, output  # noqa: E402 - after the path, too
from securelink.cli.app import COMMANDS  # noqa: E402 - after the path, too
from securelink.config.model import KEYS  # noqa: E402 - after the path, too
from securelink.errors import SecurelinkError  # noqa: E402 - after the path, too
from securelink.store import outbox  # noqa: E402

_PART = re.compile(r"(<!-- made from the code: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """A page with its parts as the code has them now."""
    return _PART.sub(lambda match: f"{match[1]}{part(match[2])}\n{match[3]}", page)


def part(name: str) -> str:
    """One part by its name."""
    what, _, of = name.partition(" of ")
    if what == "help":
        return help_of(of)
    return PARTS[name]()


# ---- states


def _diagram(arrows: Iterable[tuple[str, str, str]], starts: Iterable[str]) -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {start}" for start in starts]
    lines += [f"    {one} --> {other}{label and f': {label}'}" for one, other, label in arrows]
    return "\n".join([*lines, "```"])


def session_states() -> str:
    """The way of a link; what can happen nearly everywhere is said beside the diagram."""
    arrows = [
        (before.name, after.name, moved_by.value)
        for (before, moved_by), after in states.TRANSITIONS.items()
        if moved_by is not states.Input.FAIL
    ]
    failing = [before for before, moved_by in states.TRANSITIONS if moved_by is states.Input.FAIL]
    rest = [state.name for state in states.State if state not in failing]
    return "\n".join(
        [
            _diagram(
                arrows, (states.State.AWAIT_MESSAGE_1.name, states.State.AWAIT_MESSAGE_2.name)
            ),
            "",
            f"From every state but {' and '.join(rest)}: {states.Input.FAIL.value} --> FAILED.",
            "",
            *_table(("state", "in words"), ((state.name, state.value) for state in states.State)),
        ]
    )


def outbox_states() -> str:
    """The life of a row in the outbox."""
    arrows = [
        (before.name, after.name, "")
        for before in outbox.State
        for after in outbox.State
        if after in outbox.TRANSITIONS[before]
    ]
    return _diagram(arrows, [outbox.State.WAITING.name])


# ---- modules


def rows() -> str:
    """Who stands on whom, from the top down, and what each is for."""
    lines = [
        (str(layer), f"`{name}`", _first_line(name))
        for layer, names in reversed(ROWS)
        for name in sorted(names)
        if name in LAYER
    ]
    return "\n".join(_table(("layer", "module", "what lives there"), lines))


def _first_line(name: str) -> str:
    path = (ROOT / "securelink").joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


# ---- what scripts rely on


def error_codes() -> str:
    """The words by which a script knows a failure."""
    lines = [
        (f"`{output.code_of(kind('', hint=None))}`", str(int(kind.exit_code)), _sentence(kind))
        for kind in _kinds(SecurelinkError)
        if kind.__module__ in {SecurelinkError.__module__, failures.__name__}
    ]
    return "\n".join(_table(("`code`", "exit", "what it says"), sorted(lines)))


def _kinds(kind: type[SecurelinkError]) -> Iterator[type[SecurelinkError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def event_keys() -> str:
    """What `serve --json` writes."""
    lines = [
        (
            f"`{kind.__struct_config__.tag}`",
            ", ".join(f"`{field}`" for field in kind.__struct_fields__),
            " ".join((kind.__doc__ or "").split()),
        )
        for kind in events.Event.__args__
    ]
    return "\n".join(_table(("`event`", "further keys", "it says"), lines))


def config_keys() -> str:
    """Every key of the configuration but those of `[peers]`."""
    lines = []
    comments = _comments((ROOT / "config.example.toml").read_text())
    for table, keys in KEYS.items():
        for key, field in keys.items():
            default = {"tuple[str, ...]": "[]"}.get(str(field.type)) or _toml(field.default)
            variable = f"SECURELINK_{table}_{key}".upper()
            lines.append(
                (f"`{table}.{key}`", f"`{variable}`", f"`{default}`", comments[table, key])
            )
    return "\n".join(_table(("key", "variable", "default", "what it says"), lines))


def _comments(example: str) -> dict[tuple[str, str], str]:
    """What the example says above each key."""
    found: dict[tuple[str, str], str] = {}
    table, above = "", []
    for line in example.splitlines():
        if line.startswith("# "):
            above.append(line[2:])
        elif line.startswith("["):
            table, above = line.strip("[]"), []
        elif "=" in line and not line.startswith("#"):
            (key,) = tomllib.loads(line)
            found[table, key] = " ".join(above)
            above = []
        else:
            above = []
    return found


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def help_of(command: str) -> str:
    """What `--help` prints for a command, and for each of the commands below it."""
    texts = [_help(command)]
    listed = texts[0].partition("\nCommands:\n")[2].partition("\n\n")[0]
    texts += [_help(f"{command} {below}") for below in re.findall(r"^  (\w\S*)", listed, re.M)]
    return "\n\n".join(f"```text\n{text}\n```" for text in texts)


def _help(command: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "securelink", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
    )
    return ran.stdout.strip("\n")


def commands() -> str:
    """The commands there are, in the order of the help."""
    return " ".join(f"[`{name}`](#{name})" for name in COMMANDS)


# ---- Markdown


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        for row in (head, ("---",) * len(head), *lines)
    ]


def _sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


PARTS = {
    "session states": session_states,
    "outbox states": outbox_states,
    "rows": rows,
    "error codes": error_codes,
    "events": event_keys,
    "configuration": config_keys,
    "commands": commands,
}


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text()))
