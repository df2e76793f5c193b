"""Nodes in processes of their own, and what their owner sees of them.

A `Machine` is one home with the environment of its processes; a `Process` is one run of
`securelink`, whose output is read line by line as it comes, with a deadline. Nothing here sleeps.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from securelink import keyfile, pairing
from securelink.clock import new_id, now_ms
from securelink.config import Config, load
from securelink.endpoints import Endpoint, Kind
from securelink.home import Home
from securelink.identity import Identity, PublicKey
from securelink.ids import to_text
from securelink.node import Node
from securelink.store import addresses, inbox, outbox, peers, serving
from securelink.store.database import Database

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 20.0
"""Seconds until something that should have happened counts as never, on a slow machine too."""

_KEPT = ("PATH", "PYTHONPATH", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_FILE")


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def results(self) -> list[dict[str, Any]]:
        """The objects that it printed with `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The one object that it printed with `--json`."""
        (result,) = self.results
        return result


class _Lines:
    """One output of a process, read by a thread as it comes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._ended = False
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, find: Callable[[list[str]], T | None], timeout: float, what: str) -> T:
        """Wait until `find` finds something in the lines, and return it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while (found := find(self.lines)) is None:
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    state = "ended" if self._ended else f"{timeout:g} s are over"
                    raise AssertionError(f"no {what} ({state}) in: {''.join(self.lines)!r}")
                self._changed.wait(left)
        return found

    def text(self) -> str:
        """All of it, once the process has ended."""
        self._thread.join(PATIENCE)
        return "".join(self.lines)


class Process:
    """One run of `securelink`."""

    def __init__(
        self,
        words: Iterable[str],
        environ: Mapping[str, str],
        *,
        title: str,
        stdin: int | None = subprocess.DEVNULL,
        enter: Iterable[str] = (),
    ) -> None:
        self.title = title
        self._popen = subprocess.Popen(
            [*enter, sys.executable, "-m", "securelink", *words],
            env=dict(environ),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self._out = _Lines(self._popen.stdout)
        self._err = _Lines(self._popen.stderr)
        self._consumed = 0

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def stderr_lines(self) -> list[str]:
        """What it has written to standard error so far."""
        return list(self._err.lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return [json.loads(line) for line in list(self._out.lines)]

    def event(self, kind: str, *, timeout: float = PATIENCE, **fields: object) -> dict[str, Any]:
        """Wait for the next event of a kind, with these fields, after the last one returned."""

        def find(lines: list[str]) -> dict[str, Any] | None:
            for at in range(self._consumed, len(lines)):
                event: dict[str, Any] = json.loads(lines[at])
                if event["event"] == kind and fields.items() <= event.items():
                    self._consumed = at + 1
                    return event
            return None

        return self._out.wait(find, timeout, f"event {kind} {fields or ''} of {self.title}")

    def stderr(self, part: str, *, count: int = 1, timeout: float = PATIENCE) -> str:
        """Wait for a line on standard error that has this in it, or for so many of them."""

        def find(lines: list[str]) -> str | None:
            return next(islice((line for line in lines if part in line), count - 1, None), None)

        return self._err.wait(find, timeout, f"{part!r} on the standard error of {self.title}")

    def write(self, text: str) -> None:
        """Write all of its standard input."""
        assert self._popen.stdin is not None
        with self._popen.stdin:
            self._popen.stdin.write(text)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.running:
            self._popen.send_signal(number)

    def stop(self) -> Done:
        """End it in order, if it is one that stays."""
        self.signal(signal.SIGTERM)
        done = self.finish()
        assert done.code == 0, done
        return done

    def kill(self) -> Done:
        """Kill it, as a power cut would."""
        self.signal(signal.SIGKILL)
        return self.finish()

    def finish(self, timeout: float = PATIENCE) -> Done:
        """Wait until it has ended."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.title} has not ended in {timeout:g} s") from None
        return Done(code, self._out.text(), self._err.text())

    def clean_up(self) -> None:
        """End it, whatever it does."""
        if self.running:
            self._popen.kill()
        self._popen.wait()
        self._out.text()
        self._err.text()

    def told(self) -> str:
        """What it wrote, for a person who looks into a failed test."""
        written = [*(f"1| {line}" for line in self._out.lines)]
        written += [f"2| {line}" for line in self._err.lines]
        return "".join(written)


class Serving(Process):
    """A running `securelink serve --json`, which has said that it is ready."""

    def __init__(
        self,
        words: Iterable[str],
        environ: Mapping[str, str],
        *,
        title: str,
        enter: Iterable[str] = (),
    ) -> None:
        super().__init__(words, environ, title=title, enter=enter)
        self.ready: dict[str, Any] = {}

    def await_ready(self) -> Serving:
        """Wait until it listens."""
        self.ready = self.event("ready")
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        port = self.ready["port"]
        assert isinstance(port, int)
        return port

    @property
    def invite(self) -> str:
        """The invite that it was asked for."""
        invite = self.ready["invite"]
        assert isinstance(invite, str)
        return invite


def until(true: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Wait until something that tells nobody by itself has become true."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not in {timeout:g} s: {what}"
        time.sleep(0.005)


class Machine:
    """One home, and the processes that use it.

    `enter` is a command that runs the words after it somewhere else, as in another network.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: Mapping[str, str],
        *,
        enter: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.name = name
        self.enter = tuple(enter)
        self.processes: list[Process] = []
        self.environ = {key: os.environ[key] for key in _KEPT if key in os.environ} | {
            "LANG": "C.UTF-8",
            "SECURELINK_HOME": str(folder),
            "SECURELINK_NODE_NAME": name,
            "SECURELINK_NAT_PUBLIC_ADDRESS": "false",
            **settings,
        }

    # ---- its commands

    def start(
        self, *words: str, stdin: int | None = subprocess.DEVNULL, **settings: str
    ) -> Process:
        """Start a command; `settings` are environment variables."""
        title = f"{self.name}: {words[0]}"
        environ = self.environ | settings
        process = Process(words, environ, title=title, stdin=stdin, enter=self.enter)
        self.processes.append(process)
        return process

    def run(self, *words: str, timeout: float = PATIENCE, **settings: str) -> Done:
        """Run a command to its end."""
        return self.start(*words, **settings).finish(timeout)

    def pipe(self, text: str, *words: str) -> Done:
        """Run `send --json` with a text on its standard input."""
        process = self.start("send", "--json", *words, "-", stdin=subprocess.PIPE)
        process.write(text)
        return process.finish()

    def begin_to_serve(
        self, *words: str, port: int = 0, host: str = "127.0.0.1", **settings: str
    ) -> Serving:
        """Start `serve` on loopback, and don't wait."""
        words = ("serve", "--json", "--port", str(port), "--host", host, *words)
        title = f"{self.name}: serve"
        serving = Serving(words, self.environ | settings, title=title, enter=self.enter)
        self.processes.append(serving)
        return serving

    def serve(
        self, *words: str, port: int = 0, host: str = "127.0.0.1", **settings: str
    ) -> Serving:
        """Start `serve` on loopback, and wait until it listens."""
        return self.begin_to_serve(*words, port=port, host=host, **settings).await_ready()

    def receive(self, *words: str, **settings: str) -> Process:
        """Start `receive --json`, and wait until it is linked."""
        process = self.start("receive", "--json", *words, **settings)
        process.event("link-up")
        return process

    def join(self, invite: str, *words: str) -> dict[str, Any]:
        """Redeem an invite; it must work."""
        done = self.run("join", "--json", *words, invite)
        assert done.code == 0, done
        return done.result

    def send(self, *words: str, timeout: float = PATIENCE, **settings: str) -> Done:
        """Run `send --json`."""
        return self.run("send", "--json", *words, timeout=timeout, **settings)

    def invite(self, *, uses: int = 1, seconds: int = 3600, name: str | None = None) -> str:
        """Make an invite of a node that serves."""
        running = self.read(serving.get)
        assert running is not None
        invite = self.write(
            pairing.mint,
            self.identity,
            self.config,
            running.endpoints,
            uses=uses,
            seconds=seconds,
            name=name,
        )
        return invite.encode()

    # ---- what it received

    def received(self, peer: str) -> Path:
        """Where the files of a peer land."""
        return self.folder / "files" / peer

    def parts(self) -> list[Path]:
        """The files of which only a part has come so far."""
        return sorted((self.folder / "files" / ".partial").glob("*.part"))

    # ---- its files

    @property
    def identity(self) -> Identity:
        """Its key pair, which is made if need be."""
        return keyfile.load_or_create(self.home.key_file)

    @property
    def home(self) -> Home:
        """Where its files are."""
        return Home(self.folder, self.folder)

    @property
    def config_file(self) -> Path:
        """Its configuration."""
        return self.folder / "config.toml"

    def configure(self, text: str) -> None:
        """Write its configuration."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.config_file.write_text(text)

    @property
    def config(self) -> Config:
        """What is in force in its processes."""
        return load(self.config_file, environ=self.environ).config

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Its store, opened beside its processes."""
        database = Database.open(self.home.store_file)
        try:
            yield database
        finally:
            database.close()

    def read(
        self,
        function: Callable[Concatenate[Any, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one of the store's functions that read."""
        with self.database() as database, database.snapshot() as conn:
            return function(conn, *args, **kwargs)

    def write(
        self,
        function: Callable[Concatenate[Any, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one of the store's functions that write, and commit."""
        with self.database() as database, database.transaction() as conn:
            return function(conn, *args, **kwargs)

    def inbox(self) -> list[inbox.InboxMessage]:
        """What is in its inbox, in order."""
        messages: list[inbox.InboxMessage] = []
        while more := self.read(inbox.after, messages[-1].seq if messages else 0):
            messages += more
        return messages

    def texts(self) -> list[str]:
        """The texts in its inbox, in order."""
        return [message.text for message in self.inbox()]

    def outbox(self) -> list[outbox.OutboxRow]:
        """Every row of its outbox, in order."""

        def rows(conn: Any) -> list[outbox.OutboxRow]:
            seqs = conn.execute("SELECT seq FROM outbox ORDER BY seq").fetchall()
            return [row for (seq,) in seqs if (row := outbox.get(conn, seq)) is not None]

        return self.read(rows)

    def states(self) -> list[str]:
        """The states of its outbox's rows, in order."""
        return [str(row.state) for row in self.outbox()]

    def key_of(self, peer: str) -> PublicKey:
        """The key that it knows under a peer's name."""
        found = self.read(peers.by_name, peer)
        assert found is not None
        return PublicKey(found.key)

    def queue(self, peer: PublicKey, *texts: str) -> None:
        """Put texts for a peer into the queue, as `send --queue` would."""
        with self.database() as database, database.transaction() as conn:
            for text in texts:
                outbox.put(conn, message_id=new_id(), peer=peer.raw, text=text, sent_at=now_ms())

    def forget(self, peer: str) -> None:
        """Remove a peer."""
        self.write(peers.remove, peer, now_ms())

    def until_outbox_has(self, rows: int) -> None:
        """Wait until so many rows are in the outbox, whatever their state."""

        def there() -> bool:
            return self.home.store_file.exists() and len(self.outbox()) >= rows

        until(there, f"{rows} rows in the outbox of {self.name}")

    def locate(self, peer: PublicKey, *ports: int) -> None:
        """Note that a peer is to be found at these ports of loopback, and nowhere else."""
        endpoints = [Endpoint(Kind.LOOPBACK, "127.0.0.1", port) for port in ports]
        self.write(addresses.forget, peer.raw)
        self.write(addresses.set_endpoints, peer.raw, addresses.Source.PERSON, endpoints, now_ms())

    async def node(self) -> Node:
        """This node, opened in this very process."""
        return await Node.open(self.home, self.config)


class Machines:
    """Makes the machines of one test, and ends all of their processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Machine] = []

    def __call__(self, name: str, folder: Path | None = None, **settings: str) -> Machine:
        """A machine with a fresh home; `settings` are environment variables."""
        machine = Machine(folder or self._folder / name, name, settings)
        self._made.append(machine)
        return machine

    def pair(self, folder: Path | None = None, **settings: str) -> tuple[Machine, Serving, Machine]:
        """Alice, who serves, and bob, who has joined her."""
        alice = self("alice", folder, **settings)
        serving = alice.serve("--invite")
        bob = self("bob", **settings)
        bob.join(serving.invite)
        serving.event("link-down", peer="bob")
        return alice, serving, bob

    @property
    def processes(self) -> list[Process]:
        """All processes of all machines."""
        return [process for machine in self._made for process in machine.processes]


def ids_of(messages: Iterable[inbox.InboxMessage | outbox.OutboxRow]) -> list[str]:
    """The IDs as `--json` shows them."""
    return [to_text(message.id) for message in messages]
