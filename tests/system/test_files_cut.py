"""Files whose links are cut and whose processes are killed: each goes on where it was."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Machine, Machines, Serving, until
from proxy import INTRODUCED, READY, Action, CuttingProxy, Fault, Proxy
from trees import MIB, digest_tree, make_file, make_tree, names, same

THOROUGH = 50
"""With so many rounds the files are as large as people's are."""

A_CUT = MIB
"""Bytes that a cut may cost, beside a twentieth of the whole."""


@pytest.fixture
def source() -> random.Random:
    """Numbers that the output of a failed test lets repeat."""
    seed = int(os.environ.get("TEST_SEED", random.randrange(2**32)))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def cutting() -> Iterator[Callable[..., CuttingProxy]]:
    """Makes proxies that cut, which end with the test."""
    made: list[CuttingProxy] = []

    def make(*args: object, **kwargs: object) -> CuttingProxy:
        made.append(CuttingProxy(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def size_for(rounds: int, source: random.Random) -> int:
    """How large a file to cut."""
    if rounds >= THOROUGH:
        return source.randrange(50_000_000, 300_000_000)
    return source.randrange(20_000_000, 30_000_000)


def offsets_for(size: int, cuts: int, source: random.Random) -> list[int]:
    """Where to cut each of the connections: they are sure to come so far."""
    return [source.randrange(INTRODUCED, size // (cuts + 1)) for _ in range(cuts)]


def through(proxy: Proxy) -> tuple[str, str]:
    return "--endpoint", f"127.0.0.1:{proxy.port}"


def killing(machine: Machine) -> Callable[[], None]:
    """Kill the newest process of a machine."""

    def kill() -> None:
        machine.processes[-1].kill()

    return kill


def once_written(machine: Machine, size: int, then: Callable[[], object]) -> Callable[[], None]:
    """Go on only when so much of a file is in its part: what the kernel still holds is lost."""

    def wait() -> None:
        def is_there() -> bool:
            return any(part.stat().st_size >= size for part in machine.parts())

        until(is_there, f"{size} bytes of a part")
        then()

    return wait


def written(process: Serving) -> int:
    """Bytes that a process has written so far, to sockets not counted."""
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def the_part(machine: Machine) -> Path:
    """The one part that there is, as soon as there is one."""
    until(lambda: bool(machine.parts()), "a part")
    (part,) = machine.parts()
    return part


def test_a_file_cut_at_random_offsets_goes_on(
    machines: Machines, cutting, tmp_path, rounds: int, source: random.Random
) -> None:
    alice, serving, bob = machines.pair()
    cuts = max(3, rounds // 5)
    for number in range(max(1, rounds // 10)):
        size = size_for(rounds, source)
        file = make_file(tmp_path / f"{number}.bin", size, number + 1)
        offsets = offsets_for(size, cuts, source)
        proxy = cutting(serving.port, offsets)
        before = written(serving)
        done = bob.send(*through(proxy), "--file", str(file), timeout=120)
        assert done.code == 0, (done, offsets, size)
        assert proxy.cuts == cuts
        most = 1.05 * size + A_CUT * cuts
        assert proxy.passed <= most, (offsets, size)
        assert written(serving) - before <= most, (offsets, size)
        assert 0 < done.result["resumed"] <= size
        event = serving.event("file")
        assert (event["size"], event["id"]) == (size, done.result["id"])
        assert same(file, alice.received("bob") / file.name)
        assert alice.parts() == []
    assert set(bob.states()) == {"delivered"}


def test_a_receiver_killed_again_and_again(
    machines: Machines, cutting, tmp_path, rounds: int, source: random.Random
) -> None:
    alice, serving, bob = machines.pair()
    size = size_for(rounds, source)
    file = make_file(tmp_path / "a.bin", size)
    kills = max(2, rounds * 2 // 5)
    running = [serving]
    before: list[int] = []

    def kill() -> None:
        before.append(written(running[-1]))
        running[-1].kill()
        running.append(alice.serve(port=serving.port))

    offsets = offsets_for(size, kills, source)
    proxy = cutting(serving.port, offsets, kill)
    done = bob.send(*through(proxy), "--file", str(file), timeout=180)
    assert done.code == 0, (done, offsets, size)
    assert proxy.cuts == kills
    assert proxy.passed <= 1.05 * size + 8 * A_CUT * kills, "what the kernel held is lost too"
    assert sum(before) + written(running[-1]) <= 1.05 * size + A_CUT * kills
    assert running[-1].event("file")["size"] == size
    assert names(alice.received("bob")) == ["a.bin"]
    assert same(file, alice.received("bob") / "a.bin")
    assert alice.parts() == []


def test_a_sender_killed_again_and_again(
    machines: Machines, cutting, tmp_path, rounds: int, source: random.Random
) -> None:
    alice, serving, bob = machines.pair()
    size = size_for(rounds, source)
    file = make_file(tmp_path / "a.bin", size)
    kills = max(2, rounds * 2 // 5)
    least = 0
    for offset in offsets_for(size, kills, source):
        # So far that something has come, and is worth going on from.
        proxy = cutting(serving.port, [max(offset, MIB)], killing(bob))
        sending = bob.start("send", "--json", *through(proxy), "--file", str(file))
        assert sending.finish(120).code == -9
        serving.event("link-down", peer="bob")
        part = the_part(alice)
        assert part.stat().st_size >= least, "what was there is kept"
        least = part.stat().st_size
        assert names(alice.received("bob")) == [], "nothing that is cut looks whole"
    before = written(serving)
    done = bob.send("--file", str(file), timeout=120)
    assert done.code == 0, done
    assert done.result["resumed"] == least > 0
    assert written(serving) - before <= 1.05 * (size - least) + A_CUT
    assert serving.event("file")["size"] == size
    assert names(alice.received("bob")) == ["a.bin"]
    assert same(file, alice.received("bob") / "a.bin")
    assert alice.parts() == []
    assert bob.states()[-1] == "delivered"


def test_a_later_send_of_the_same_file_goes_on(machines: Machines, cutting, tmp_path) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 12 * MIB)
    proxy = cutting(serving.port, [8 * MIB], once_written(alice, 4 * MIB, serving.kill))
    cut = bob.send(*through(proxy), "--timeout", "1", "--file", str(file))
    assert cut.code in {3, 4, 6}, cut
    size = the_part(alice).stat().st_size
    assert size >= 4 * MIB

    alice.serve(port=serving.port)
    done = bob.send("--file", str(file))
    assert done.code == 0, done
    assert done.result["resumed"] == size
    assert same(file, alice.received("bob") / "a.bin")
    assert names(alice.received("bob")) == ["a.bin"]


@pytest.mark.parametrize("longer", [False, True], ids=["same size", "longer"])
def test_a_source_that_changed_in_between_starts_over(
    machines: Machines, cutting, tmp_path, *, longer: bool
) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 12 * MIB, 1)
    proxy = cutting(serving.port, [8 * MIB], once_written(alice, 4 * MIB, serving.kill))
    assert bob.send(*through(proxy), "--timeout", "1", "--file", str(file)).code in {3, 4, 6}
    assert the_part(alice).stat().st_size >= 4 * MIB
    make_file(file, 12 * MIB + longer, 2)
    alice.serve(port=serving.port)
    done = bob.run("send", "--file", str(file))
    assert done.code == 0, done
    assert "changed" in done.err
    assert same(file, alice.received("bob") / "a.bin")
    assert names(alice.received("bob")) == ["a.bin"]


def test_new_content_with_the_old_time_and_size_is_noticed(
    machines: Machines, cutting, tmp_path
) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 12 * MIB, 1)
    proxy = cutting(serving.port, [8 * MIB], once_written(alice, 4 * MIB, serving.kill))
    assert bob.send(*through(proxy), "--timeout", "1", "--file", str(file)).code in {3, 4, 6}
    info = file.stat()
    with file.open("r+b") as written_to:
        written_to.seek(MIB)
        written_to.write(b"another byte")
    os.utime(file, ns=(info.st_mtime_ns, info.st_mtime_ns))
    alice.serve(port=serving.port)
    done = bob.send("--file", str(file))
    assert done.code == 0, done
    assert done.result["resumed"] == 0, "the digests of what is there differ"
    assert same(file, alice.received("bob") / "a.bin")


def test_a_source_that_changes_on_the_way_starts_over(
    machines: Machines, cutting, tmp_path
) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 24 * MIB, 1)
    proxy = cutting(serving.port, [5 * MIB], lambda: os.truncate(file, 10 * MIB))
    done = bob.send(*through(proxy), "--file", str(file))
    assert done.code == 0, done
    assert done.result["changed"] == ["a.bin"]
    assert names(alice.received("bob")) == ["a.bin"]
    assert same(file, alice.received("bob") / "a.bin")


def test_a_receipt_that_was_lost_makes_no_second_file(machines: Machines, proxy, tmp_path) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 100_000)
    swallowing: Proxy = proxy(serving.port)
    swallowing.down = Fault(Action.SWALLOW, after=READY)
    process = bob.start("send", "--json", *through(swallowing), "--file", str(file))
    first = serving.event("file")
    process.kill()
    assert bob.states() == ["handed"]
    done = bob.send("--file", str(file))
    assert done.code == 0, done
    assert done.result["id"] == first["id"], "the same ID for life"
    assert names(alice.received("bob")) == ["a.bin"]
    assert bob.states()[-1] == "delivered"


def test_a_folder_cut_again_and_again(
    machines: Machines, cutting, tmp_path, rounds: int, source: random.Random
) -> None:
    alice, serving, bob = machines.pair()
    folder = make_tree(tmp_path / "photos", 400 if rounds < THOROUGH else 5000)
    make_file(folder / "large.bin", 6 * MIB)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    cuts = max(3, rounds // 8)
    proxy = cutting(serving.port, offsets_for(total, cuts, source))
    done = bob.send(*through(proxy), "--file", str(folder), timeout=180)
    assert done.code == 0, done
    assert proxy.cuts == cuts
    assert digest_tree(alice.received("bob") / "photos") == digest_tree(folder)
    assert [each.name for each in alice.received("bob").iterdir()] == ["photos"]
    assert alice.parts() == []


def test_a_folder_whose_sender_is_killed_lands_once(
    machines: Machines, cutting, tmp_path, rounds: int, source: random.Random
) -> None:
    alice, serving, bob = machines.pair()
    folder = make_tree(tmp_path / "photos", 400)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for _ in range(max(2, rounds // 5)):
        process = bob.start("send", "--json", "--file", str(folder))
        serving.event("link-up")
        time.sleep(source.uniform(0, 0.15))
        process.kill()
    done = bob.send("--file", str(folder), timeout=120)
    assert done.code == 0, done
    assert done.result["bytes"] == total
    landed = {each.name for each in alice.received("bob").iterdir()}
    # Had one of them come to its end, the next was a second one on purpose.
    others = {f"photos ({number})" for number in range(2, len(landed) + 1)}
    assert landed == {"photos"} | others
    for name in landed:
        assert digest_tree(alice.received("bob") / name) == digest_tree(folder)
