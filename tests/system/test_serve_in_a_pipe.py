"""What `serve` writes for a person whose screen is a pipe, a file or a journal."""

from __future__ import annotations

import re
import signal

from nodes import Machines


def test_the_lines_of_one_run(machines: Machines) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.start("serve", "-v", "--host", "127.0.0.1", "--port", "0")
    serving.stderr("peers lose this address")
    bob.join(alice.invite())
    serving.stderr("bob has left")
    assert bob.send("hello").code == 0
    assert bob.send("two\nlines").code == 0
    serving.stderr("bob has left", count=3)
    serving.signal(signal.SIGINT)
    done = serving.finish()
    assert done.code == 0

    # Texts alone are the result; no invite is made where nobody sees it.
    at = r"\d\d:\d\d"
    assert re.fullmatch(f"{at} bob hello\n{at} bob two\n      lines\n", done.out), done.out
    port = re.search(r"^alice \(\w{7}\) listens on port (\d+)\n  loopback: ", done.err)
    assert port is not None, done.err
    linked = "bob is linked from 127.0.0.1 port "
    left = "bob has left 127.0.0.1 port "
    told = [line for line in done.err.splitlines() if line.startswith((linked, left))]
    assert [line.startswith(linked) for line in told] == [True, False] * 3
    assert all(line.endswith(": closed") for line in told[1::2])
    assert f"paired with bob\nbob is {bob.identity.public.peer_id}\n" in done.err
    assert done.err.endswith("stopped\n")
    assert "\x1b" not in done.out + done.err, "no colours in a pipe"
