"""Hosts of the lab: network namespaces, what runs in them, and the tools for it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from holder import sweep
from nodes import PATIENCE, Machine

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
TOOLS = Path(os.environ.get("SECURELINK_LAB_TOOLS") or _CACHE / "securelink-lab") / "root"
"""Where `install-tools` puts them."""

NEEDED = ("unshare", "nsenter", "ip", "nft", "conntrack", "miniupnpd", "turnserver")

_PROBE = """\
set -e
ip link add probe type bridge
ip link add probe0 type veth peer name probe1
echo 'table inet probe {
    chain nat { type nat hook prerouting priority -100; dnat ip to 192.0.2.1; }
    chain forward { type filter hook forward priority 0; ct state established accept; }
}' | nft -f -
"""


@functools.cache
def tool(name: str) -> str | None:
    """The path of a program: one that `install-tools` fetched, or else the system's."""
    folders = [TOOLS / "usr/sbin", TOOLS / "usr/bin", TOOLS / "sbin", TOOLS / "bin"]
    folders += [Path(folder) for folder in os.get_exec_path()]
    folders += [Path("/usr/sbin"), Path("/sbin")]
    return next((str(path / name) for path in folders if os.access(path / name, os.X_OK)), None)


@functools.cache
def environ() -> dict[str, str]:
    """The environment in which the tools find each other and their libraries."""
    libraries = [str(path) for path in TOOLS.glob("usr/lib/*-linux-gnu")]
    path = [str(TOOLS / part) for part in ("usr/sbin", "usr/bin", "sbin", "bin")]
    return os.environ | {
        "PATH": os.pathsep.join([*path, *os.get_exec_path(), "/usr/sbin", "/sbin"]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "LC_ALL": "C.UTF-8",
    }


@functools.cache
def lacking() -> str | None:
    """Why no lab can be made here, or None."""
    if sys.platform != "linux":
        return "the router lab needs Linux"
    if missing := [name for name in NEEDED if tool(name) is None]:
        return f"the router lab lacks {', '.join(missing)}: run tests/lab/install-tools"
    words = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _PROBE]
    probe = subprocess.run(words, env=environ(), capture_output=True, text=True)
    if probe.returncode != 0:
        return f"no router lab in this kernel or container: {probe.stderr.strip()}"
    return None


class Networks:
    """Network namespaces that end with whoever made them, however that ends."""

    def __init__(self, names: Iterable[str]) -> None:
        holder = Path(__file__).with_name("holder.py")
        python = [sys.executable, "-I", "-S", str(holder)]
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", *python, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what ends the tests' process group leaves it its work
            text=True,
        )
        assert self._holder.stdout is not None
        self._descriptors: dict[str, int] = json.loads(self._holder.stdout.readline())
        user = Path(f"/proc/{self._holder.pid}/ns/user")
        self.user = str(user.readlink())
        # While this is open, no other user namespace can get the same number.
        self._held = os.open(user, os.O_RDONLY)

    @property
    def pid(self) -> int:
        """The process that holds them."""
        return self._holder.pid

    def path(self, name: str) -> str:
        """Where one of them is to be found."""
        return f"/proc/{self.pid}/fd/{self._descriptors[name]}"

    def enter(self, name: str) -> list[str]:
        """What runs the words after it in one of them; its process ID stays the same."""
        user = f"/proc/{self.pid}/ns/user"
        return [
            "nsenter", "--preserve-credentials", f"--user={user}", f"--net={self.path(name)}", "--",
        ]  # fmt: skip

    def number(self, name: str) -> str:
        """What the kernel calls one of them."""
        return str(Path(self.path(name)).readlink())

    def udp_ports(self, name: str, pid: int) -> set[int]:
        """The UDP ports that are bound in one of them, read through a process that enters it."""
        proc = Path(f"/proc/{pid}")
        if str((proc / "ns/net").readlink()) != self.number(name):
            return set()  # it has not entered yet
        _, *lines = (proc / "net/udp").read_text().splitlines()
        return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}

    def close(self) -> None:
        """End all processes in them, and thereby them."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(PATIENCE)
        sweep(self.user)  # if the holder was killed
        os.close(self._held)


class Host:
    """One network namespace, as a computer."""

    def __init__(self, networks: Networks, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.enter = networks.enter(name)
        self._folder = folder
        self._started: list[subprocess.Popen[Any]] = []
        self._machines: list[Machine] = []

    def run(
        self,
        words: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002  # as subprocess.run has it
        timeout: float = PATIENCE,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*self.enter, *words],
            env=environ(),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def popen(self, words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command, which ends with the lab at the latest; `options` as of `Popen`."""
        started = subprocess.Popen([*self.enter, *words], env=environ(), **options)
        self._started.append(started)
        return started

    def setup(self, commands: str) -> None:
        """Run commands of `ip`, one a line."""
        done = self.run(["ip", "-batch", "-"], input=commands)
        assert done.returncode == 0, (self.name, done.stderr)

    def reaches(self, address: str, port: int, timeout: float = 2.0) -> str:
        """What a TCP connection from here finds: `open`, `refused`, `unreachable` or `silent`."""
        done = self.run([sys.executable, "-I", "-c", _CONNECT, address, str(port), str(timeout)])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def keep_silent(self) -> None:
        """Run a device that answers the search for UPnP routers, and then says nothing more."""
        device = self.popen(
            [sys.executable, "-I", "-c", _SILENT], stdout=subprocess.PIPE, text=True
        )
        assert device.stdout is not None
        assert device.stdout.readline() == "listens\n"

    def node(self, name: str, **settings: str) -> Machine:
        """A node of securelink on this computer; `settings` are environment variables."""
        machine = Machine(
            self._folder / name,
            name,
            {"SECURELINK_NAT_PUBLIC_ADDRESS": "true", **settings},
            enter=self.enter,
        )
        self._machines.append(machine)
        return machine

    @property
    def machines(self) -> list[Machine]:
        """The nodes on this computer."""
        return self._machines

    def reap(self) -> None:
        """Take leave of the processes that have ended with the network."""
        for machine in self._machines:
            for process in machine.processes:
                process.clean_up()
        for started in self._started:
            started.kill()
            started.wait()
            for stream in (started.stdin, started.stdout, started.stderr):
                if stream is not None:
                    stream.close()


_CONNECT = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("silent")
except OSError:
    print("unreachable")
else:
    print("open")
"""

_SILENT = """\
import socket, struct
listening = socket.create_server(("", 8080))
search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
search.bind(("", 1900))
group = socket.inet_aton("239.255.255.250") + socket.inet_aton("0.0.0.0")
search.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
print("listens", flush=True)
while True:
    asked, sender = search.recvfrom(2000)
    target = asked.split(b"\\nST: ")[1].split(b"\\r\\n")[0]
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.connect(sender)
    location = b"http://%s:8080/" % own.getsockname()[0].encode()
    search.sendto(b"HTTP/1.1 200 OK\\r\\nST: " + target + b"\\r\\nLOCATION: " + location
                  + b"\\r\\n\\r\\n", sender)
"""
