"""What `send` and `outbox --flush` say when a signal ends them: what arrived, and what not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import Machine, Machines, Process, until
from proxy import READY, Action, Fault, Proxy
from trees import MIB, digest_tree, make_file, make_tree

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143}
SIZE = 20 * MIB
"""Of a file whose end doesn't leave as long as the proxy holds the most of it back."""

GOES_ON = "the same command goes on where it stopped"


def through(proxy: Proxy) -> tuple[str, str]:
    return "--endpoint", f"127.0.0.1:{proxy.port}"


def interrupt(process: Process, number: signal.Signals = signal.SIGINT) -> str:
    """Send the signal, and return what was said on standard error."""
    process.signal(number)
    done = process.finish()
    assert (done.code, done.out) == (ENDS[number], ""), done
    return done.err


def part_of(machine: Machine, size: int) -> Callable[[], bool]:
    """Whether so much of a file is there."""
    return lambda: any(part.stat().st_size >= size for part in machine.parts())


@pytest.mark.parametrize("number", ENDS)
def test_a_file_goes_on_as_was_said(
    number: signal.Signals, machines: Machines, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", SIZE)
    between = proxy(serving.port)
    between.up = Fault(Action.HOLD, after=SIZE // 2)
    sending = bob.start("send", *through(between), "--file", str(file))
    until(part_of(alice, 9 * MIB), "9 MiB of it")
    assert interrupt(sending, number) == f"interrupted: nothing delivered to alice; {GOES_ON}\n"
    assert bob.states() == ["withdrawn"]
    again = bob.send("--file", str(file))
    assert again.code == 0, again
    assert again.result["resumed"] >= 9 * MIB


def test_a_folder_goes_on_and_lands_once(
    machines: Machines, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    alice, serving, bob = machines.pair()
    folder = tmp_path / "photos"
    for number in range(4):
        make_file(folder / f"{number}.bin", SIZE, number + 1)
    between = proxy(serving.port)
    between.up = Fault(Action.HOLD, after=2 * SIZE + MIB)
    sending = bob.start("send", *through(between), "--file", str(folder))
    until(lambda: bob.states().count("delivered") == 2, "two of them")
    assert interrupt(sending) == f"interrupted: 2 of 4 files delivered to alice; {GOES_ON}\n"
    assert bob.run("send", "--file", str(folder)).code == 0
    assert digest_tree(alice.received("bob") / "photos") == digest_tree(folder)
    assert [each.name for each in alice.received("bob").iterdir()] == ["photos"]


def test_what_is_there_already_is_not_to_be_sent_again(
    machines: Machines, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    _, serving, bob = machines.pair()
    files = [str(make_file(tmp_path / name, SIZE)) for name in ("a", "b", "c")]
    between = proxy(serving.port)
    between.up = Fault(Action.HOLD, after=SIZE + MIB)
    sending = bob.start("send", *through(between), "--file", *files, "-m", "three files")
    until(lambda: bob.states().count("delivered") == 2, "the text and the first file")
    assert interrupt(sending) == (
        "interrupted: the text and 1 of 3 files delivered to alice; "
        f"the same command with {files[1]}, {files[2]} alone goes on where it stopped\n"
    )


def test_a_text_beside_a_file_is_not_to_be_sent_again(
    machines: Machines, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    _, serving, bob = machines.pair()
    file = make_file(tmp_path / "a", SIZE)
    between = proxy(serving.port)
    between.up = Fault(Action.HOLD, after=MIB)
    sending = bob.start("send", *through(between), "--file", str(file), "-m", "as promised")
    until(lambda: bob.states().count("delivered") == 1, "the text")
    assert interrupt(sending) == (
        "interrupted: the text delivered to alice; "
        "the same command without -m goes on where it stopped\n"
    )


def test_a_stream_cannot_go_on(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    reading, writing = os.pipe()
    sending = bob.start("send", "--file", "-", "--name", "log", stdin=reading)
    os.close(reading)
    try:
        os.write(writing, b"first\n")
        until(lambda: bool(alice.parts()), "a part of it")
        assert interrupt(sending) == (
            "interrupted: nothing delivered to alice; "
            "a stream cannot go on, send it again from its beginning\n"
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("number", ENDS)
def test_what_is_queued_stays_so(
    number: signal.Signals, machines: Machines, proxy, tmp_path
) -> None:
    alice, serving, bob = machines.pair()
    folder = tmp_path / "photos"
    for each in range(3):
        make_file(folder / f"{each}.bin", SIZE, each + 1)
    between = proxy(serving.port)
    between.up = Fault(Action.HOLD, after=SIZE + MIB)
    words = ("--queue", "--file", str(folder), "-m", "photos")
    sending = bob.start("send", *through(between), *words)
    until(lambda: bob.states().count("delivered") == 2, "the text and one of them")
    assert interrupt(sending) == (
        "interrupted: the text and 1 of 3 files delivered to alice; 2 files stay in the queue\n"
    )
    assert bob.states().count("waiting") == 3, "and the folder itself"
    assert bob.run("outbox", "--flush").code == 0
    assert digest_tree(alice.received("bob") / "photos") == digest_tree(folder)


@pytest.mark.parametrize("number", ENDS)
def test_a_flush(number: signal.Signals, machines: Machines, proxy: Callable[..., Proxy]) -> None:
    alice, serving, bob = machines.pair()
    between = proxy(serving.port)
    between.down = Fault(Action.HOLD, after=READY)
    bob.queue(alice.identity.public, "one", "two")
    bob.locate(alice.identity.public, between.port)
    flushing = bob.start("outbox", "--flush")
    serving.event("message", text="two")
    assert interrupt(flushing, number) == (
        "interrupted: nothing delivered to alice; 2 texts stay in the queue\n"
    )
    assert bob.run("outbox", "--json").results[0]["owned"] is False


def test_a_text_that_nobody_takes(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    sending = bob.start("send", "hello")
    bob.until_outbox_has(1)
    assert interrupt(sending) == "interrupted: nothing delivered to alice\n"
    assert bob.states() == ["withdrawn"]


def test_what_has_left_may_have_arrived(machines: Machines, proxy: Callable[..., Proxy]) -> None:
    alice, serving, bob = machines.pair()
    between = proxy(serving.port)
    between.down = Fault(Action.HOLD, after=READY)
    sending = bob.start("send", *through(between), "hello")
    serving.event("message", text="hello")
    assert interrupt(sending) == (
        "interrupted: the text may have arrived at alice: the next link brings the receipt\n"
    )
    assert bob.states() == ["handed"]
    assert alice.texts() == ["hello"]


def test_of_lines(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    sending = bob.start("send", "--lines", stdin=subprocess.PIPE)
    stdin = sending._popen.stdin
    assert stdin is not None
    with stdin:
        stdin.write("one\ntwo\n")
        stdin.flush()
        serving.event("message", text="two")
        until(lambda: bob.states() == ["delivered"] * 2, "both receipts")
        assert interrupt(sending) == "interrupted: 2 lines delivered to alice\n"


def test_each_recipient_has_its_line(machines: Machines, tmp_path: Path) -> None:
    _, _, bob = machines.pair()
    carol = machines("carol")
    there = carol.serve("--invite")
    bob.join(there.invite)
    there.stop()
    tree = make_tree(tmp_path / "photos", 3)
    sending = bob.start("send", "--to", "all", "--file", str(tree))
    sending.stderr("delivered ")
    told, missing = interrupt(sending).splitlines()
    assert told.startswith(f"delivered {tree} (3 files, ")
    assert missing == (
        "interrupted: nothing delivered to carol; the same command to carol alone sends it again"
    )


def test_for_a_script(machines: Machines, tmp_path: Path) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    file = make_file(tmp_path / "a.bin", 5)
    for words, said in (
        ("--json", "interrupted: nothing delivered to alice; the same command sends it again\n"),
        ("--quiet", ""),
    ):
        sending = bob.start("send", words, "--file", str(file))
        until(lambda: "waiting" in bob.states(), "its row")
        sending.signal(signal.SIGTERM)
        done = sending.finish()
        assert (done.code, done.err) == (143, said)
    sending = bob.start("send", "--json", "--file", str(file))
    until(lambda: "waiting" in bob.states(), "its row")
    sending.signal(signal.SIGINT)
    done = sending.finish()
    assert (done.result["code"], done.result["exit"]) == ("interrupted", 130)
