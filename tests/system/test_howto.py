"""What docs/howto.md has people type, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from nodes import Machines
from trees import make_file, same

HOWTO = (Path(__file__).parents[2] / "docs" / "howto.md").read_text()


def blocks(heading: str) -> list[str]:
    """The commands of a section, block by block."""
    section = HOWTO.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(?:sh|text)\n(.*?)```", section, re.DOTALL)


def shell(commands: str, folder: Path, **settings: str) -> None:
    """Run commands in a shell in which `securelink` is this one; each must work."""
    tools = folder / "bin"
    if not tools.exists():
        tools.mkdir()
        command = tools / "securelink"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m securelink "$@"\n')
        command.chmod(0o755)
    environ = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SECURELINK_NAT_PUBLIC_ADDRESS": "false",
        **settings,
    }
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", commands],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done


def test_a_job_of_a_ci_service(machines: Machines, tmp_path: Path) -> None:
    alice = machines("alice")
    serving = alice.serve("--invite", "--no-upnp")
    at_home, runner = tmp_path / "home", tmp_path / "runner"
    for folder in (at_home, runner):
        folder.mkdir()
    once, job = blocks("A job of a CI service")
    shell(once.replace("slinv1...", serving.invite), at_home, SECURELINK_NODE_NAME="runner")
    made = make_file(runner / "dist" / "a.whl", 100_000)
    for _ in range(2):
        shell(
            job,
            runner,
            CI_NODE_KEY=(at_home / "ci-node" / "identity.key").read_text().strip(),
            CI_NODE_CONFIG=(at_home / "ci-node" / "config.toml").read_text(),
        )
    texts = [message.text for message in alice.inbox() if message.file is None]
    assert texts == ["build of main: passed"] * 2
    assert same(made, alice.received("runner") / "dist" / "a.whl")
    assert same(made, alice.received("runner") / "dist (2)" / "a.whl")


def test_the_lines_for_cron(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    lines = "\n".join(blocks("A job of cron"))
    backup, flush = re.findall(r"^\S+ (?:\S+ ){4} ?(.*)$", lines, re.MULTILINE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "backup").write_text("#!/bin/sh\necho the backup is done\n")
    (tmp_path / "bin" / "backup").chmod(0o755)
    venv = tmp_path / "securelink" / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "securelink").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m securelink "$@"\n')
    (venv / "securelink").chmod(0o755)

    def run(line: str) -> subprocess.CompletedProcess[str]:
        environ = os.environ | bob.environ | {"HOME": str(tmp_path)}
        line = line.replace("--timeout 60", "--timeout 0.3")
        return subprocess.run(
            ["/bin/sh", "-c", line], env=environ, capture_output=True, text=True, timeout=60
        )

    waits = run(backup)
    assert (waits.returncode, waits.stdout, waits.stderr) == (75, "", "")
    assert run(flush).returncode == 75
    alice.serve(port=serving.port)
    done = run(flush)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [text.strip() for text in alice.texts()] == ["the backup is done"]
