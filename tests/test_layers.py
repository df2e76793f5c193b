"""The house: which module stands on which, and what the lower ones must not touch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "securelink"

ROWS: tuple[tuple[int, frozenset[str]], ...] = (
    (0, frozenset({"errors", "limits", "base32", "ids"})),
    (0, frozenset({"names", "filenames", "identity", "endpoints"})),
    (1, frozenset({"announced", "file_messages"})),
    (1, frozenset({"noise", "framing", "records", "window", "messages", "states", "backoff"})),
    (1, frozenset({"hello", "events", "invite", "gate"})),
    (1, frozenset({"nat", "nat.terms", "nat.timing", "nat.ports"})),
    (1, frozenset({"nat.pcp", "nat.natpmp", "nat.stun", "nat.ssdp"})),
    (2, frozenset({"session", "transfer", "progress", "pacing"})),
    (2, frozenset({"nat.diagnosis", "nat.rungs"})),
    (3, frozenset({"home", "config", "keyfile", "locks", "interfaces", "store", "link", "clock"})),
    (3, frozenset({"landing", "reading", "threads", "lines"})),
    (3, frozenset({"descriptors", "sparing", "sources"})),
    (3, frozenset({"nat.clock", "nat.route"})),
    (3, frozenset({"nat.datagrams", "nat.search"})),
    (3, frozenset({"nat.clients", "nat.upnp", "nat.outside"})),
    (3, frozenset({"boot", "diskthread"})),
    (4, frozenset({"directory", "reach", "presence"})),
    (4, frozenset({"admission", "claims", "unfinished"})),
    (4, frozenset({"nat.ledger", "nat.probe"})),
    (4, frozenset({"nat.mapping", "nat.sweep", "nat.address", "nat.listing"})),
    (4, frozenset({"nat.telling"})),
    (4, frozenset({"nat.keeper"})),
    (4, frozenset({"nat.trial", "nat.machine"})),
    (4, frozenset({"nat.ladder"})),
    (4, frozenset({"node", "acceptor", "answers", "resting"})),
    (4, frozenset({"connect", "choice", "redialling", "outgoing", "following", "leaving"})),
    (4, frozenset({"dispatch", "incoming", "items"})),
    (4, frozenset({"delivery", "pairing", "parcel", "progressing", "linkrows"})),
    (4, frozenset({"registry"})),
    (5, frozenset({"server", "client", "outward", "lookout", "standing", "courier", "fetching"})),
    (6, frozenset({"service", "receiver"})),
    (7, frozenset({"cli"})),
    (7, frozenset({"__main__"})),
)
"""From the ground up: a module imports from rows below its own, a package also from itself."""

SPLIT = frozenset({"nat"})
"""Packages that reach over several layers: each of their modules is a room of its own."""

LAYER = {name: layer for layer, names in ROWS for name in names}
ROW = {name: row for row, (_, names) in enumerate(ROWS) for name in names}

IMPURE = frozenset(
    {"asyncio", "socket", "select", "selectors", "ssl", "threading", "queue", "subprocess"}
    | {"time", "random", "secrets", "os", "pathlib", "io", "tempfile", "shutil", "sqlite3"}
    | {"fcntl", "signal", "logging"}
)
"""Layers 0 to 2 do no I/O, read no clock, run no loop and draw no random numbers."""


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    """The module or package right under `securelink` that a file belongs to."""
    return room_of([part.removesuffix(".py") for part in path.relative_to(ROOT).parts])


def room_of(parts: list[str]) -> str:
    """The room that the path of a file, or the name of what is imported, leads to."""
    if parts[0] in SPLIT and parts[1:] and parts[1] != "__init__":
        return ".".join(parts[:2])
    return parts[0]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    names: set[str] = set()
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.Import):
            names |= {alias.name for alias in found.names}
        elif isinstance(found, ast.ImportFrom):
            assert found.level == 0, f"{path} imports relatively"
            assert found.module is not None
            if found.module.removeprefix("securelink.") in SPLIT | {"securelink"}:
                names |= {f"{found.module}.{alias.name}" for alias in found.names}
            else:
                names.add(found.module)
    return names


def test_every_module_has_its_row() -> None:
    assert {room(path) for path in modules()} == set(ROW)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_down_only(path: Path) -> None:
    own = room(path)
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package != "securelink":
            continue
        target = room_of(rest.split("."))
        if target in {"", "__version__"} or target == own:
            continue
        assert ROW[target] < ROW[own], f"{own} imports {target}, which does not stand below it"


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if LAYER[room(path)] <= 2],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_core_does_no_io(path: Path) -> None:
    used = {name.partition(".")[0] for name in imported(path)}
    assert not used & IMPURE
