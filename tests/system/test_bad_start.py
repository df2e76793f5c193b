"""What keeps a command from starting, or a server from keeping what it is sent."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest
from holding import held_link
from nodes import Done, Machines, until


def told(done: Done, code: int, *parts: str) -> None:
    """One failure, one line of it and a hint, in words that help."""
    assert done.code == code, done
    assert done.err == ""
    result = done.result
    assert result["exit"] == code
    assert result["hint"]
    assert "\n" not in result["error"]
    for part in parts:
        assert part.lower() in (result["error"] + result["hint"]).lower()


def test_a_port_in_use(machines: Machines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = machines("alice").run("serve", "--json", "--host", "127.0.0.1", "--port", port)
    told(done, 1, port, "in use", "--port")


def test_an_address_of_another_machine(machines: Machines) -> None:
    done = machines("alice").run("serve", "--json", "--host", "192.0.2.77")
    told(done, 2, "192.0.2.77")


def test_a_key_file_that_others_can_read(machines: Machines) -> None:
    alice = machines("alice")
    assert alice.identity
    alice.home.key_file.chmod(0o644)
    told(alice.run("serve", "--json", "--port", "0"), 1, "identity.key", "chmod 600")
    told(alice.send("hello"), 1, "identity.key", "chmod 600")


def test_a_broken_configuration(machines: Machines) -> None:
    alice = machines("alice")
    alice.configure("[server]\nprot = 1\n")
    told_without_hint = alice.run("serve", "--json")
    assert told_without_hint.code == 2
    assert "config.toml, line 2: server.prot" in told_without_hint.result["error"]
    assert "did you mean port?" in told_without_hint.result["error"]
    alice.configure("[server\n")
    told(alice.run("serve", "--json"), 2, "config.toml, line 1")
    assert not alice.home.store_file.exists()


def test_a_second_server_of_one_node(machines: Machines) -> None:
    alice = machines("alice")
    serving = alice.serve()
    done = alice.run("serve", "--json", "--port", "0")
    told(done, 1, f"process {serving.pid}", "SECURELINK_HOME")
    serving.kill()
    assert alice.serve().stop().code == 0, "a killed one is in nobody's way"


def test_a_person_gets_a_line_and_a_hint(machines: Machines) -> None:
    done = machines("alice").run("send", "--to", "nobody", "hello")
    assert done.code == 2
    assert done.out == ""
    first, second = done.err.splitlines()
    assert first == "securelink: error: no peer is called nobody"
    assert second.startswith("hint: ")


def test_a_read_only_folder(machines: Machines, small_disk: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    alice = machines("alice", small_disk / "home")
    told(alice.run("serve", "--json", "--port", "0"), 2, "read-only")
    told(alice.send("hello"), 2, "read-only")


def test_a_home_that_became_read_only(machines: Machines, small_disk: Path) -> None:
    alice, serving, _ = machines.pair(small_disk / "home")
    serving.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    told(alice.run("serve", "--json", "--port", "0"), 1, "read-only")


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    os.sync()
    return filler


def test_a_full_disk_refuses_for_now_and_keeps_the_link(
    machines: Machines, small_disk: Path
) -> None:
    alice, serving, bob = machines.pair(small_disk / "home")
    there = bob.key_of("alice")

    async def link() -> None:
        async with held_link(bob, there, serving.port) as held:
            await asyncio.to_thread(serving.event, "link-up")
            filler = fill(small_disk)
            # Enough to need room, whatever is left in the store's own files.
            bob.queue(there, "x" * 500_000)
            held.outgoing.wake()
            await asyncio.to_thread(
                until, lambda: bob.outbox()[0].reason == "its disk is full", "a refusal"
            )
            assert not held.ended.done()

            done = await asyncio.to_thread(bob.pipe, "y" * 500_000)
            assert done.code == 5
            assert "its disk is full" in done.result["error"]
            assert bob.states()[1] == "withdrawn"

            filler.unlink()
            assert (await asyncio.to_thread(bob.send, "now")).code == 0
            await asyncio.to_thread(
                until, lambda: bob.states()[0] == "delivered", "it goes again by itself"
            )
            assert not held.ended.done()

    asyncio.run(link())
    assert sorted(len(text) for text in alice.texts()) == [3, 500_000]
    assert serving.stop().code == 0


def test_a_full_disk_keeps_nobody_out(machines: Machines, small_disk: Path) -> None:
    _, serving, bob = machines.pair(small_disk / "home")
    filler = fill(small_disk)
    done = bob.pipe("z" * 500_000, "--timeout", "5")
    assert done.code == 5
    assert "its disk is full" in done.result["error"]
    filler.unlink()
    assert bob.send("now").code == 0
    assert serving.stop().code == 0


def test_a_full_disk_of_the_sender(machines: Machines, small_disk: Path) -> None:
    alice = machines("alice")
    serving = alice.serve("--invite")
    bob = machines("bob", small_disk / "home")
    bob.join(serving.invite)
    filler = fill(small_disk)
    done = bob.pipe("w" * 500_000)
    told(done, 1, "disk is full")
    filler.unlink()
    assert bob.send("now").code == 0
    assert alice.texts() == ["now"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_without_the_right_to_write(machines: Machines, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    told(machines("alice", folder / "home").run("serve", "--json"), 2, "permission denied")
