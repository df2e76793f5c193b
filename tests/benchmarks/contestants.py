"""The programs that carry a file or a folder from one process to another over loopback.

Each is set up once, with servers, keys and pairings, and then carries as often as asked. What is
not installed says so.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from processes import Cost, Standing, finish, run


@dataclass(frozen=True)
class Carried:
    """One transfer.

    Attributes:
        seconds: of the wall, from the start of the sending process to its end, which is after
            the last byte has been taken over there.
        cpu: seconds of user and system time, of both sides.
        sender, receiver: peak memory in bytes; None where it was not watched.
    """

    seconds: float
    cpu: float
    sender: int | None
    receiver: int | None


class Contestant(ABC):
    """A program to be measured.

    Attributes:
        title: its name in the table.
        needs: the programs without which there is no contest.
    """

    title: str
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.title.replace(" ", "-").replace(",", "")
        self.inbox = self.folder / "inbox"
        self.standing: list[Standing] = []

    @classmethod
    def missing(cls) -> list[str]:
        """What it needs and is not installed."""
        return [name for name in cls.needs if find(name) is None]

    def set_up(self) -> None:
        """Make everything ready that a person does once, and never again."""
        self.inbox.mkdir(parents=True)

    @abstractmethod
    def carry(self, source: Path) -> Carried:
        """Carry a file or a folder once."""

    @abstractmethod
    def landed(self, source: Path) -> Path:
        """Where it is afterwards."""

    def clear(self) -> None:
        """Remove what was received."""
        shutil.rmtree(self.inbox)
        self.inbox.mkdir()

    def end(self) -> None:
        """End all of its processes."""
        for standing in self.standing:
            standing.end()


def find(name: str) -> str | None:
    """Where a program is; servers are often not on the PATH of an ordinary user."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    # Debian's packages for Python 3 have a 3 behind some names.
    return shutil.which(name, path=path) or shutil.which(f"{name}3", path=path)


class Securelink(Contestant):
    """`serve` and `send --file`, paired before."""

    title = "securelink"

    def set_up(self) -> None:
        super().set_up()
        alice, bob = self._environ("alice"), self._environ("bob")
        words = ["serve", "--json", "--port", "0", "--host", "127.0.0.1", "--invite"]
        self._server = Standing([sys.executable, "-m", "securelink", *words], environ=alice)
        self.standing.append(self._server)
        ready = json.loads(self._server.line())
        while ready["event"] != "ready":
            ready = json.loads(self._server.line())
        self.port: int = ready["port"]
        self._server.forget_output()
        run([sys.executable, "-m", "securelink", "join", ready["invite"]], environ=bob)
        self._sender = bob

    def _environ(self, name: str) -> dict[str, str]:
        home = self.folder / name
        home.mkdir(mode=0o700)
        return {
            "PATH": os.environ.get("PATH", ""),
            "SECURELINK_HOME": str(home),
            "SECURELINK_NODE_NAME": name,
            "SECURELINK_NAT_PUBLIC_ADDRESS": "false",
            "SECURELINK_FILES_KEEP_FREE": "0",
            "SECURELINK_FILES_FOLDER": str(self.inbox),
        }

    def carry(self, source: Path) -> Carried:
        before = self._server.cpu()
        self._server.reset_peak()
        cost = self._send(source)
        cpu = cost.cpu + self._server.cpu() - before
        return Carried(cost.seconds, cpu, cost.peak, self._server.peak())

    def _send(self, source: Path) -> Cost:
        words = ["send", "--quiet", "--file", source]
        return run([sys.executable, "-m", "securelink", *words], environ=self._sender)

    def landed(self, source: Path) -> Path:
        return self.inbox / "bob" / source.name


class Ssh(Contestant):
    """What goes through an sshd of our own, with keys made for this run."""

    needs: ClassVar[tuple[str, ...]] = ("sshd", "ssh", "ssh-keygen")

    def set_up(self) -> None:
        super().set_up()
        for name in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name])
        shutil.copy(self.folder / "user.pub", self.folder / "authorized_keys")
        self.port = free_port()
        if os.geteuid() == 0:
            # sshd wants it to be there, and on many machines only its service makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder}/host\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\n"
            "Subsystem sftp internal-sftp\n"
        )
        sshd = find("sshd")
        assert sshd is not None
        self._server = Standing([sshd, "-D", "-e", "-f", config])
        self.standing.append(self._server)
        await_port(self.port)
        public = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        # The person's own configuration has no say in this.
        self.options = [
            *("-F", "none", "-i", str(self.folder / "user"), "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "BatchMode=yes"),
        ]
        run(["ssh", "-p", str(self.port), *self.options, "127.0.0.1", "true"])

    def carry(self, source: Path) -> Carried:
        before = self._server.cpu_without_children()
        cost = self.send(source)
        cpu = cost.cpu + self._server.cpu_without_children() - before
        return Carried(cost.seconds, cpu, cost.peak, None)

    @abstractmethod
    def send(self, source: Path) -> Cost:
        """Carry it."""

    def landed(self, source: Path) -> Path:
        return self.inbox / source.name


class Scp(Ssh):
    """`scp` as it comes."""

    title = "scp"
    needs = (*Ssh.needs, "scp")
    cipher: ClassVar[tuple[str, ...]] = ()

    def send(self, source: Path) -> Cost:
        words = ["scp", "-q", "-r", *self.cipher, "-P", str(self.port), *self.options]
        return run([*words, source, f"127.0.0.1:{self.inbox}/"])


class ScpAes(Scp):
    """`scp` with the cipher that securelink has too."""

    title = "scp, AES-GCM"
    cipher = ("-c", "aes256-gcm@openssh.com")


class TarSsh(Ssh):
    """`tar c | ssh tar x`."""

    title = "tar and ssh"
    needs = (*Ssh.needs, "tar")

    def send(self, source: Path) -> Cost:
        began = time.perf_counter()
        packing = subprocess.Popen(
            ["tar", "-c", "-C", source.parent, source.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert packing.stdout is not None
        unpack = f"tar -x -C '{self.inbox}'"
        carrying = subprocess.Popen(
            ["ssh", "-p", str(self.port), *self.options, "127.0.0.1", unpack],
            stdin=packing.stdout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        packing.stdout.close()
        carried, packed = finish(carrying, began), finish(packing, began)
        return Cost(carried.seconds, carried.cpu + packed.cpu, max(carried.peak, packed.peak))


class CurlNginx(Contestant):
    """`curl` from nginx with TLS: here the receiver is the one that is started."""

    title = "curl from nginx, TLS"
    needs = ("curl", "nginx", "openssl")

    def set_up(self) -> None:
        super().set_up()
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
            ]
        )
        self.port = free_port()
        self._shared = self.folder / "shared"
        self._shared.mkdir()
        temporary = "".join(
            f"{what}_temp_path {self.folder};"
            for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            f"{user} daemon off; master_process off; error_log stderr;"
            f"pid {self.folder}/pid; events {{}}\n"
            f"http {{ access_log off; sendfile on; {temporary} server {{"
            f"listen 127.0.0.1:{self.port} ssl; root {self._shared};"
            f"ssl_certificate {certificate}; ssl_certificate_key {key}; }} }}\n"
        )
        nginx = find("nginx")
        assert nginx is not None
        self._server = Standing([nginx, "-p", self.folder, "-c", self.folder / "nginx.conf"])
        self.standing.append(self._server)
        await_port(self.port)

    def carry(self, source: Path) -> Carried:
        link = self._shared / source.name
        link.unlink(missing_ok=True)
        link.symlink_to(source)
        before = self._server.cpu()
        self._server.reset_peak()
        url = f"https://127.0.0.1:{self.port}/{source.name}"
        words = ["curl", "-q", "-sSf", "--cacert", self.folder / "certificate.pem", "-o"]
        cost = run([*words, self.landed(source), url])
        cpu = cost.cpu + self._server.cpu() - before
        return Carried(cost.seconds, cpu, self._server.peak(), cost.peak)

    def landed(self, source: Path) -> Path:
        return self.inbox / source.name


class Wormhole(Contestant):
    """magic-wormhole, with a mailbox server of our own."""

    title = "magic-wormhole"
    needs = ("wormhole", "twist")

    def set_up(self) -> None:
        super().set_up()
        port = free_port()
        database = f"--channel-db={self.folder}/relay.sqlite"
        twist = find("twist")
        assert twist is not None
        words = [twist, "wormhole-mailbox", f"--port=tcp:{port}:interface=127.0.0.1", database]
        self.standing.append(Standing(words))
        await_port(port)
        self._words = ["wormhole", "--relay-url", f"ws://127.0.0.1:{port}/v1"]
        self._words += ["--transit-helper", f"tcp:127.0.0.1:{port}"]
        self._count = 0

    def carry(self, source: Path) -> Carried:
        self._count += 1
        code = f"{self._count}-benchmark-files"
        began = time.perf_counter()
        words = [*self._words, "send", "--hide-progress", "--code", code, source]
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        sending = subprocess.Popen(words, **silent, stderr=subprocess.PIPE)  # type: ignore[call-overload]
        words = [*self._words, "receive", "--hide-progress", "--accept-file"]
        words += ["--output-file", self.landed(source), code]
        received = run(words)
        sent = finish(sending, began)
        return Carried(sent.seconds, sent.cpu + received.cpu, sent.peak, received.peak)

    def landed(self, source: Path) -> Path:
        return self.inbox / source.name


def free_port() -> int:
    """A port of loopback that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def await_port(port: int, timeout: float = 20.0) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
