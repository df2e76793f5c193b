"""The pages hold what they say: parts are made from the code, examples and names are looked up."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import generated
import pytest

from securelink.config.model import KEYS
from securelink.errors import ExitCode
from securelink.file_messages import FileItem
from securelink.messages import ItemType, RefusalCode

ROOT = generated.ROOT
PAGES = [*generated.PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]
WIRE = json.loads((ROOT / "tests" / "vectors" / "wire.json").read_text())


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("path", generated.PAGES, ids=lambda path: path.name)
def test_parts_made_from_the_code_are_what_the_code_makes(path: Path) -> None:
    text = path.read_text()
    assert generated.filled(text) == text, "run: python tests/docs/generated.py"


def test_every_part_stands_in_a_page() -> None:
    text = "".join(path.read_text() for path in generated.PAGES)
    for name in (*generated.PARTS, *(f"help of {command}" for command in generated.COMMANDS)):
        assert text.count(f"<!-- made from the code: {name} -->") == 1, name


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the table whose first line begins with `head`."""
    _, found, after = text.partition(f"\n{head}")
    assert found, f"no table begins with {head}"
    lines = after.split("\n\n")[0].split("\n")[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_exit_code_is_explained() -> None:
    explained = {int(row[0]) for row in rows(page("commands.md"), "| exit | meaning")}
    assert explained == {*map(int, ExitCode), 141}


def test_the_tables_of_items_and_refusals() -> None:
    for head, types in (("| type | item |", ItemType), ("| type | item of files |", FileItem)):
        items = {row[0]: row[1] for row in rows(page("protocol.md"), head)}
        assert items == {str(int(item)): item.name for item in types}
    refusals = rows(page("protocol.md"), "| code | REFUSED")
    assert [(row[0], row[1].partition(":")[0]) for row in refusals] == [
        (str(int(code)), code.name) for code in RefusalCode
    ]


def test_examples_of_peer_ids_and_invites_are_vectors() -> None:
    text = page("protocol.md")
    peer_ids = {case["peer_id"] for case in WIRE["peer_ids"]}
    invites = {case["text"] for case in WIRE["invites"]}
    assert set(re.findall(r"\b(?:[A-Z2-7]{7}-){7}[A-Z2-7]{7}\b", text)) == peer_ids
    shown = set(re.findall(r"\bslinv1[a-z2-7]{60,}", text))
    assert len(shown) == 2
    assert shown <= invites
    for case in WIRE["peer_ids"]:
        assert f"| `{case['public_key']}` | `{case['peer_id']}` |" in text


@pytest.mark.parametrize(("which", "begins", "zeros"), [(0, "03 0022", 27), (4, "10 003c", 161)])
def test_examples_of_records_are_vectors(which: int, begins: str, zeros: int) -> None:
    record = WIRE["records"][which]["record"]
    example = begins + page("protocol.md").partition(f"\n{begins}")[2].split("```")[0]
    assert f"{zeros} zeros" in example
    # The numbers are in the first column, the last of them of zeros.
    lines = re.findall(r"^(?:[0-9a-f]{2} )?[0-9a-f]+", example, re.MULTILINE)
    digits = "".join(lines[:-1]).replace(" ", "")
    assert record == digits + "00" * zeros


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_keys_variables_and_files_exist(path: Path) -> None:
    text = path.read_text()
    variables = {f"SECURELINK_{table}_{key}".upper() for table in KEYS for key in KEYS[table]}
    named = set(re.findall(r"\bSECURELINK_[A-Z_]+\b", text))
    assert named <= variables | {"SECURELINK_HOME"}
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_nobody_is_sent_to_the_other_project(path: Path) -> None:
    assert not re.search(r"pip install (-\S+ )*['\"]?securelink(?!-p2p)\b", path.read_text())


NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_a_promise_names_exists() -> None:
    named = NAMED.findall(page("security.md"))
    assert len(named) > 20
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {
            each.name
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, f"{file} has no {name}"


def test_every_promise_names_a_test() -> None:
    promises = rows(page("security.md"), "| promise")
    assert len(promises) > 15
    for promise, held_by in promises:
        assert NAMED.search(held_by), promise
