"""A home network behind a real router: miniupnpd and the kernel's NAT in network namespaces.

    lan, lan2: 192.168.50.2, .3 --- router --- [isp] --- wan: 1.2.3.9, with a STUN server

The internet sees the home as 1.2.3.4, which is the router's own address, or that of a provider's
network between. Nothing leads out of these namespaces. miniupnpd takes the ranges that are reserved
for documentation for private ones and maps nothing there; hence a WAN of other people's addresses.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from hosts import Host, Networks
from nodes import PATIENCE, until

PUBLIC = "1.2.3.4"
"""The address under which the internet sees the home."""

INTERNET = "1.2.3.9"
"""The host in the internet."""

ROUTER = "192.168.50.1"
LAN = "192.168.50.2"
LAN2 = "192.168.50.3"

SSDP_PORT = 1900
PCP_PORT = 5351
STUN_PORT = 3478

_IP_PROTOCOLS = {6: "tcp", 17: "udp"}
_PROVIDER_NETWORKS = {"cgnat": "100.64.0", "double": "192.168.1", "squatter": "5.6.7"}
_FORWARD = "echo 1 > /proc/sys/net/ipv4/ip_forward"

# The servers write every line to the machine's own log too, and without one to its console, which
# is slow.
_WITHOUT_SYSLOG = """
for log in /dev/log /dev/console; do
    if [ -e "$log" ]; then mount --bind /dev/null "$log"; fi
done
exec "$@"
"""


@dataclass(frozen=True)
class Variant:
    """What kind of router, and what is around it."""

    upnp: bool = True
    natpmp: bool = True
    pcp: bool = True
    deny: bool = False
    """Refuse every mapping."""
    secure: bool = True
    """Map with UPnP only to the address that asks."""
    min_lifetime: int = 2
    """The shortest lease of PCP and NAT-PMP, in seconds."""
    provider: Literal["public", "cgnat", "double", "squatter"] = "public"
    """What the router's WAN side is in: the internet, 100.64/10, another home router's network, or
    one that uses other people's public addresses for its own.
    """
    claims: str = ""
    """The external address that the router calls its own, whatever it is."""
    default_route: bool = True
    """Whether the LAN's hosts have one."""
    second: bool = False
    """Whether there is a second host in the LAN."""
    stun: bool = False
    """Whether the host in the internet runs a STUN server."""


class Entry(NamedTuple):
    """A port that the router forwards."""

    protocol: str
    external: int
    host: str
    port: int


class Lab:
    """A home network, until it is closed."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.variant = variant
        self._folder = folder
        self._miniupnpd: subprocess.Popen[Any] | None = None
        self._boots = 0
        between = _PROVIDER_NETWORKS.get(variant.provider)
        self.router_wan = f"{between}.2" if between else PUBLIC
        addresses = {"lan": LAN, "router": ROUTER, "wan": INTERNET}
        if variant.second:
            addresses["lan2"] = LAN2
        if between:
            addresses["isp"] = f"{between}.1"
        self.networks = Networks(addresses)
        self.hosts = {
            name: Host(self.networks, name, address, folder) for name, address in addresses.items()
        }
        self.lan, self.router, self.wan = (self.hosts[name] for name in ("lan", "router", "wan"))
        try:
            self._connect()
            if variant.stun:
                self._begin_stun()
            self.boot()
        except BaseException:
            self.close()
            raise

    @property
    def lan2(self) -> Host:
        """The second host in the LAN."""
        return self.hosts["lan2"]

    @property
    def isp(self) -> Host:
        """The provider's router."""
        return self.hosts["isp"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything in it, and remove it."""
        self.networks.close()
        for host in self.hosts.values():
            host.reap()

    # ---- how it is built

    def _connect(self) -> None:
        path = self.networks.path
        out = self.router if self.variant.provider == "public" else self.isp
        self.router.setup(f"""
            link set lo up
            link add lan type bridge mcast_snooping 0
            address add {ROUTER}/24 dev lan
            link set lan up
        """)
        for number, name in enumerate(name for name in self.hosts if name.startswith("lan")):
            self.router.setup(f"""
                link add lan{number} type veth peer name lan netns {path(name)}
                link set lan{number} master lan
                link set lan{number} up
            """)
            self.hosts[name].setup(f"""
                link set lo up
                address add {self.hosts[name].address}/24 dev lan
                link set lan up
                {f"route add default via {ROUTER}" if self.variant.default_route else ""}
            """)
        if out is not self.router:
            self.isp.setup(f"""
                link set lo up
                link add home type veth peer name wan netns {path("router")}
                address add {self.isp.address}/24 dev home
                link set home up
            """)
            self.router.setup(f"""
                address add {self.router_wan}/24 dev wan
                link set wan up
                route add default via {self.isp.address}
            """)
            self.isp.run(["sh", "-c", _FORWARD], check=True)
            self.isp.run(["nft", "-f", "-"], input=_rules("home"), check=True)
        out.setup(f"""
            link add wan type veth peer name wan netns {path("wan")}
            address add {PUBLIC}/24 dev wan
            link set wan up
        """)
        self.wan.setup(f"""
            link set lo up
            address add {INTERNET}/24 dev wan
            link set wan up
        """)
        self.router.run(["sh", "-c", _FORWARD], check=True)

    def _begin_stun(self) -> None:
        private = self._folder / "turnserver"
        words = ["turnserver", "-n", "--no-auth", "--stun-only", "-L", INTERNET]
        words += ["-p", str(STUN_PORT), "--no-tls", "--no-dtls", "--no-tcp", "--no-cli"]
        words += [
            "--log-file",
            "stdout",
            "--pidfile",
            f"{private}.pid",
            "--userdb",
            f"{private}.db",
        ]
        self._start(self.wan, words, "turnserver", STUN_PORT)

    def _start(
        self, host: Host, words: list[str], title: str, *ports: int
    ) -> subprocess.Popen[Any]:
        """Start a server, and wait until it is bound to its UDP ports."""
        log = self._folder / f"{title}.log"
        private = ["unshare", "--mount", "sh", "-c", _WITHOUT_SYSLOG, "sh"]
        with log.open("ab") as output:
            server = host.popen(
                [*private, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        def ready() -> bool:
            assert server.poll() is None, f"{title} has ended: {log.read_text()}"
            return set(ports) <= self.networks.udp_ports(host.name, server.pid)

        until(ready, f"{title} listens on {ports}")
        return server

    # ---- the router

    def boot(self) -> None:
        """Start the router's services, with no memory of what it forwarded."""
        variant = self.variant
        self._boots += 1
        drops = ""
        if variant.natpmp != variant.pcp:  # miniupnpd has both or none: drop the other's version
            version = 2 if variant.natpmp else 0
            drops = f'iifname "lan" udp dport {PCP_PORT} @th,64,8 {version} drop'
        self.router.run(["nft", "-f", "-"], input=_rules("lan", drops), check=True)
        ports = [SSDP_PORT] * variant.upnp + [PCP_PORT] * (variant.natpmp or variant.pcp)
        if not ports:
            return
        configuration = self._folder / "miniupnpd.conf"
        configuration.write_text(self._configuration())
        words = ["miniupnpd", "-d", "-f", str(configuration)]
        words += ["-P", str(self._folder / "miniupnpd.pid")]
        if variant.deny:  # before it refuses, it tries all ports, and tells of each
            words = ["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *words]
        self._miniupnpd = self._start(self.router, words, "miniupnpd", *ports)

    def shut_down(self) -> None:
        """Cut its power: it forgets what it forwarded, and the flows through it."""
        if self._miniupnpd is not None:
            self._miniupnpd.kill()
            self._miniupnpd.wait(PATIENCE)
            self._miniupnpd = None
        self.router.run(["nft", "flush", "ruleset"], check=True)
        self.router.run(["conntrack", "-F"], check=True)

    def reboot(self) -> None:
        """Start the router again: its epoch begins anew, and its control port is another.

        Before the first time its epoch is as old as this machine, so that it drops at once.
        """
        self.shut_down()
        self.boot()

    def hang(self) -> None:
        """Stop the router's services where they are; the kernel forwards all the same."""
        assert self._miniupnpd is not None
        self._miniupnpd.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End that."""
        assert self._miniupnpd is not None
        self._miniupnpd.send_signal(signal.SIGCONT)

    @property
    def control_port(self) -> int:
        """Where the router's UPnP is to be found now."""
        return 5000 + self._boots

    def _configuration(self) -> str:
        variant = self.variant

        def yes(value: bool) -> str:
            return "yes" if value else "no"

        allow = f"allow 1024-65535 {ROUTER}/24 1024-65535"
        return f"""
            ext_ifname=wan
            {f"ext_ip={variant.claims}" if variant.claims else ""}
            listening_ip=lan
            http_port={self.control_port}
            enable_upnp={yes(variant.upnp)}
            enable_natpmp={yes(variant.natpmp or variant.pcp)}
            min_lifetime={variant.min_lifetime}
            max_lifetime=86400
            secure_mode={yes(variant.secure)}
            system_uptime={yes(self._boots == 1)}
            ipv6_disable=yes
            {"" if variant.deny else allow}
            deny 0-65535 0.0.0.0/0 0-65535
        """

    def entries(self) -> set[Entry]:
        """What the router forwards, read from the kernel."""
        return {entry for _, entry in self._forwards()}

    def delete_entry(self, external: int, protocol: str = "tcp") -> None:
        """Remove an entry as somebody else on its own host would, with UPnP."""
        (host,) = (
            host
            for host in self.hosts.values()
            for entry in self.entries()
            if entry[:3] == (protocol, external, host.address)
        )
        description = f"http://{ROUTER}:{self.control_port}/rootDesc.xml"
        host.run(["upnpc", "-u", description, "-d", str(external), protocol], check=True)
        assert not any(entry[:2] == (protocol, external) for entry in self.entries())

    def break_entry(self, external: int, protocol: str = "tcp") -> None:
        """Forward from a port no more, although the router's list still has the entry."""
        (handle,) = (
            handle for handle, entry in self._forwards() if entry[:2] == (protocol, external)
        )
        words = ["nft", "delete", "rule", "inet", "filter", "prerouting_miniupnpd"]
        self.router.run([*words, "handle", str(handle)], check=True)

    def _forwards(self) -> Iterator[tuple[int, Entry]]:
        """What the router forwards, with the handles of its rules."""
        words = ["nft", "-a", "-j", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]
        listed = json.loads(self.router.run(words, check=True).stdout)
        for item in listed["nftables"]:
            if "rule" in item:
                yield item["rule"]["handle"], _entry(item["rule"]["expr"])

    # ---- for a person who looks into a failed test

    def told(self) -> dict[str, str]:
        """What its servers wrote, by their names."""
        return {log.stem: log.read_text(errors="replace") for log in self._folder.glob("*.log")}


def _rules(inside: str, drops: str = "") -> str:
    """A home router's packet filter and NAT, with the chains that miniupnpd fills."""
    return f"""table inet filter {{
        chain miniupnpd {{ }}
        chain prerouting_miniupnpd {{ }}
        chain postrouting_miniupnpd {{ }}
        chain input {{
            type filter hook input priority 0;
            {drops}
        }}
        chain forward {{
            type filter hook forward priority 0; policy drop;
            ct state established,related accept
            iifname "{inside}" accept
            jump miniupnpd
        }}
        chain prerouting {{
            type nat hook prerouting priority -100;
            jump prerouting_miniupnpd
        }}
        chain postrouting {{
            type nat hook postrouting priority 100;
            jump postrouting_miniupnpd
            oifname "wan" masquerade
        }}
    }}"""


def _entry(expressions: list[dict[str, Any]]) -> Entry:
    """What one of miniupnpd's rules forwards, of its JSON."""
    protocol = external = to = None
    for expression in expressions:
        match expression:
            case {"match": {"left": {"payload": {"base": "nh", "offset": 72}}, "right": value}}:
                protocol = _IP_PROTOCOLS[value]
            case {"match": {"left": {"payload": {"field": "dport"}}, "right": value}}:
                external = value
            case {"dnat": value}:
                to = value
    assert protocol is not None, expressions
    assert external is not None, expressions
    assert to is not None, expressions
    return Entry(protocol, external, to["addr"], to["port"])


class Labs:
    """Makes the labs of one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[Lab] = []

    def __call__(self, **options: Any) -> Lab:
        """A running lab; `options` are fields of `Variant`."""
        folder = self._folder / f"lab{len(self.made)}"
        folder.mkdir()
        self.made.append(Lab(folder, Variant(**options)))
        return self.made[-1]
