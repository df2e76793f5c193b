"""The lab behaves as real routers do, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from holder import inhabitants
from hosts import Host
from lab import INTERNET, LAN, LAN2, PCP_PORT, PUBLIC, ROUTER, STUN_PORT, Entry, Lab, Labs, Variant
from nodes import PATIENCE, until

ASK = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(float(sys.argv[4]))
    asking.connect((sys.argv[1], int(sys.argv[2])))
    try:
        asking.send(bytes.fromhex(sys.argv[3]))
        print(asking.recv(2048).hex())
    except ConnectionRefusedError:
        print("refused")
    except TimeoutError:
        print("silent")
"""

LISTEN = """\
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listening:
    print("listens", flush=True)
    while True:
        accepted, (address, port) = listening.accept()
        accepted.close()
        print(address, flush=True)
"""

NAT_PMP_ADDRESS = bytes(2)
NONCE = bytes(range(12))


def ask(
    host: Host, packet: bytes, *, port: int = PCP_PORT, to: str = ROUTER, wait: float = 1
) -> str:
    """What answers a UDP packet: hexadecimal, `refused` or `silent`."""
    words = [sys.executable, "-I", "-c", ASK, to, str(port), packet.hex(), str(wait)]
    done = host.run(words, check=True)
    return done.stdout.strip()


def nat_pmp(port: int, lease: int = 60) -> bytes:
    """RFC 6886, section 3.3: map a TCP port."""
    return struct.pack("!BBHHHI", 0, 2, 0, port, port, lease)


def pcp(host: Host, port: int, lease: int = 60) -> bytes:
    """RFC 6887, sections 7.1 and 11.1: map a TCP port."""
    client = bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(host.address).packed
    header = struct.pack("!BBHI", 2, 1, 0, lease) + client
    suggested = bytes(10) + b"\xff\xff" + bytes(4)
    return header + NONCE + struct.pack("!B3xHH", 6, port, port) + suggested


def pcp_answer(answer: str) -> tuple[int, int, str]:
    """Its result code, external port and external address."""
    packet = bytes.fromhex(answer)
    assert packet[:2] == b"\x02\x81"
    (external,) = struct.unpack_from("!H", packet, 42)
    return packet[3], external, str(ipaddress.IPv4Address(packet[56:60]))


def upnpc(lab: Lab, host: Host, *words: str) -> str:
    """What miniupnpc's client says, without a search for the router."""
    address = f"http://{ROUTER}:{lab.control_port}/rootDesc.xml"
    done = host.run(["upnpc", "-u", address, *words])
    return done.stdout + done.stderr


def upnp_error(said: str) -> int:
    """The code of the error that it names."""
    found = re.search(r"failed with code (?:: )?(\d{3})", said)
    assert found, said
    return int(found[1])


def map_pcp(lab: Lab) -> None:
    assert pcp_answer(ask(lab.lan, pcp(lab.lan, 4000))) == (0, 4000, PUBLIC)


def map_nat_pmp(lab: Lab) -> None:
    said = lab.lan.run(["natpmpc", "-g", ROUTER, "-a", "4000", "4000", "tcp", "60"]).stdout
    assert "Mapped public port 4000 protocol TCP to local port 4000" in said


def map_upnp(lab: Lab) -> None:
    said = upnpc(lab, lab.lan, "-a", LAN, "4000", "4000", "tcp", "60")
    assert f"external {PUBLIC}:4000 TCP is redirected to internal {LAN}:4000" in said


def serve(host: Host, port: int) -> subprocess.Popen[str]:
    """Listen, and tell of those who connect."""
    words = [sys.executable, "-I", "-c", LISTEN, str(port)]
    server = host.popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "listens\n"
    return server


@pytest.mark.parametrize("map_port", [map_pcp, map_nat_pmp, map_upnp])
def test_a_mapped_port_is_reached_from_the_internet(
    lab: Labs, map_port: Callable[[Lab], None]
) -> None:
    home = lab()
    server = serve(home.lan, 4000)
    assert home.wan.reaches(PUBLIC, 4000) == "refused"
    map_port(home)
    assert home.entries() == {Entry("tcp", 4000, LAN, 4000)}
    assert home.wan.reaches(PUBLIC, 4000) == "open"
    assert server.stdout is not None
    assert server.stdout.readline() == f"{INTERNET}\n"
    assert home.wan.reaches(LAN, 4000) == "unreachable"
    server.kill()
    server.wait()
    assert home.wan.reaches(PUBLIC, 4000) == "refused"


def test_the_router_is_found_by_a_search(lab: Labs) -> None:
    said = lab().lan.run(["upnpc", "-s"]).stdout
    assert f"http://{ROUTER}:5001/" in said
    assert f"ExternalIPAddress = {PUBLIC}" in said


def test_a_host_is_not_reached_through_its_own_public_address(lab: Labs) -> None:
    home = lab()
    serve(home.lan, 4000)
    map_upnp(home)
    assert home.wan.reaches(PUBLIC, 4000) == "open"
    assert home.lan.reaches(PUBLIC, 4000) == "refused"


def test_a_lease_ends(lab: Labs) -> None:
    home = lab()
    assert pcp_answer(ask(home.lan, pcp(home.lan, 4000, lease=2)))[:2] == (0, 4000)
    assert home.entries()
    until(lambda: not home.entries(), "the lease is over")


def test_two_hosts_want_the_same_port(lab: Labs) -> None:
    home = lab(second=True)
    map_upnp(home)
    second = home.lan2
    assert upnp_error(upnpc(home, second, "-a", LAN2, "4000", "4000", "tcp", "60")) == 718
    assert pcp_answer(ask(second, pcp(second, 4000)))[:2] == (0, 4001)
    assert home.entries() == {Entry("tcp", 4000, LAN, 4000), Entry("tcp", 4001, LAN2, 4000)}
    assert home.lan2.reaches(LAN, 4000) == "refused"


def test_a_secure_router_maps_only_to_who_asks(lab: Labs) -> None:
    home = lab(second=True)
    assert upnp_error(upnpc(home, home.lan, "-a", LAN2, "4000", "4000", "tcp", "60")) == 718
    map_upnp(home)
    assert upnp_error(upnpc(home, home.lan2, "-d", "4000", "tcp")) == 606
    assert home.entries() == {Entry("tcp", 4000, LAN, 4000)}


def test_another_router_maps_for_anybody(lab: Labs) -> None:
    home = lab(secure=False)
    upnpc(home, home.lan, "-a", LAN2, "4000", "4000", "tcp", "60")
    assert home.entries() == {Entry("tcp", 4000, LAN2, 4000)}


def test_a_router_that_refuses_every_mapping(lab: Labs) -> None:
    home = lab(deny=True)
    assert upnp_error(upnpc(home, home.lan, "-a", LAN, "4000", "4000", "tcp", "60")) == 606
    assert bytes.fromhex(ask(home.lan, NAT_PMP_ADDRESS))[8:] == bytes([1, 2, 3, 4])
    assert bytes.fromhex(ask(home.lan, nat_pmp(4000), wait=PATIENCE / 2))[2:4] == b"\x00\x02"
    assert pcp_answer(ask(home.lan, pcp(home.lan, 4000), wait=PATIENCE / 2))[0] == 2
    assert not home.entries()


def test_each_protocol_can_be_missing(lab: Labs) -> None:
    upnp = lab(natpmp=False, pcp=False)
    assert ask(upnp.lan, NAT_PMP_ADDRESS) == "refused"
    map_upnp(upnp)

    pmp = lab(upnp=False, pcp=False)
    assert ask(pmp.lan, pcp(pmp.lan, 4000), wait=0.3) == "silent"
    assert "No valid UPNP" in upnpc(pmp, pmp.lan, "-s")
    map_nat_pmp(pmp)

    port_control = lab(upnp=False, natpmp=False)
    assert ask(port_control.lan, NAT_PMP_ADDRESS, wait=0.3) == "silent"
    map_pcp(port_control)

    none = lab(upnp=False, natpmp=False, pcp=False)
    assert ask(none.lan, NAT_PMP_ADDRESS) == "refused"
    assert "No valid UPNP" in upnpc(none, none.lan, "-s")


def stun(home: Lab) -> str:
    """The address that the STUN server sees."""
    request = struct.pack("!HHI", 1, 0, 0x2112A442) + NONCE
    packet = bytes.fromhex(ask(home.lan, request, port=STUN_PORT, to=INTERNET))
    (at,) = (match.start() for match in re.finditer(b"\x00\x20\x00\x08\x00\x01", packet))
    masked = int.from_bytes(packet[at + 8 : at + 12], "big")
    return str(ipaddress.IPv4Address(masked ^ 0x2112A442))


def test_a_stun_server_sees_the_public_address(lab: Labs) -> None:
    assert stun(lab(stun=True)) == PUBLIC


def test_a_provider_that_shares_its_address(lab: Labs) -> None:
    home = lab(provider="cgnat", stun=True)
    assert stun(home) == PUBLIC
    said = upnpc(home, home.lan, "-a", LAN, "4000", "4000", "tcp", "60")
    assert "ExternalIPAddress = \n" in said
    assert upnp_error(said) == 501
    assert bytes.fromhex(ask(home.lan, NAT_PMP_ADDRESS))[2:4] == b"\x00\x03"
    assert pcp_answer(ask(home.lan, pcp(home.lan, 4000)))[0] == 8


def test_a_router_that_calls_the_provider_s_address_its_own(lab: Labs) -> None:
    home = lab(provider="cgnat", claims=PUBLIC, stun=True)
    serve(home.lan, 4000)
    map_pcp(home)
    assert stun(home) == PUBLIC
    assert home.isp.reaches(home.router_wan, 4000) == "open"
    assert home.wan.reaches(PUBLIC, 4000) == "refused"


def test_a_router_behind_a_router(lab: Labs) -> None:
    home = lab(provider="double", stun=True)
    assert stun(home) == PUBLIC
    said = upnpc(home, home.lan, "-a", LAN, "4000", "4000", "tcp", "60")
    assert "ExternalIPAddress = \n" in said
    assert upnp_error(said) == 501
    assert bytes.fromhex(ask(home.lan, NAT_PMP_ADDRESS))[2:4] == b"\x00\x03"


def test_a_router_whose_public_address_is_not_the_internet_s(lab: Labs) -> None:
    home = lab(provider="squatter", stun=True)
    serve(home.lan, 4000)
    assert stun(home) == PUBLIC
    assert pcp_answer(ask(home.lan, pcp(home.lan, 4000))) == (0, 4000, "5.6.7.2")
    assert home.isp.reaches("5.6.7.2", 4000) == "open"
    assert home.wan.reaches(PUBLIC, 4000) == "refused"


def test_hosts_without_a_default_route(lab: Labs) -> None:
    home = lab(default_route=False)
    assert home.lan.reaches(INTERNET, 80) == "unreachable"
    map_nat_pmp(home)
    assert lab().lan.reaches(INTERNET, 80) == "refused"


def test_a_reboot_forgets(lab: Labs) -> None:
    home = lab()
    map_upnp(home)
    port = home.control_port
    before = epoch(home)
    home.reboot()
    assert epoch(home) < before
    assert not home.entries()
    assert home.control_port != port
    map_upnp(home)


def epoch(home: Lab) -> int:
    """The router's seconds since its start."""
    (seconds,) = struct.unpack("!I", bytes.fromhex(ask(home.lan, NAT_PMP_ADDRESS))[4:8])
    assert isinstance(seconds, int)
    return seconds


@pytest.mark.parametrize("map_port", [map_pcp, map_nat_pmp, map_upnp])
def test_an_entry_is_deleted_by_somebody(lab: Labs, map_port: Callable[[Lab], None]) -> None:
    home = lab()
    serve(home.lan, 4000)
    map_port(home)
    assert home.wan.reaches(PUBLIC, 4000) == "open"
    home.delete_entry(4000)
    assert not home.entries()
    assert home.wan.reaches(PUBLIC, 4000) == "refused"
    assert "4000->" not in upnpc(home, home.lan, "-l")
    map_port(home)
    assert home.wan.reaches(PUBLIC, 4000) == "open"


def test_an_entry_is_dead_although_it_is_listed(lab: Labs) -> None:
    home = lab()
    serve(home.lan, 4000)
    map_upnp(home)
    home.break_entry(4000)
    assert not home.entries()
    assert home.wan.reaches(PUBLIC, 4000) == "refused"
    assert "4000->" in upnpc(home, home.lan, "-l")
    upnpc(home, home.lan, "-d", "4000", "tcp")
    map_upnp(home)
    assert home.wan.reaches(PUBLIC, 4000) == "open"


def test_nothing_leads_out(lab: Labs) -> None:
    home = lab(provider="cgnat", second=True)
    links = {"lo", "lan", "lan0", "lan1", "wan", "home"}
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        for host in home.hosts.values():
            assert host.reaches("127.0.0.1", port) == "refused"
            assert host.reaches("9.9.9.9", 53, timeout=0.3) in ("unreachable", "silent")
            names = host.run(["ip", "-brief", "link"], check=True).stdout.splitlines()
            assert {re.split("[@ ]", line)[0] for line in names} <= links


# ---- how it ends


def traces(home: Lab) -> set[str]:
    """What the kernel calls the lab's namespaces."""
    return {home.networks.user, *(home.networks.number(name) for name in home.hosts)}


def holders(names: set[str]) -> list[str]:
    """The files in /proc that hold one of these namespaces."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        for folder in ("ns", "fd"):
            try:
                links = list((proc / folder).iterdir())
            except OSError:
                continue
            for link in links:
                with contextlib.suppress(OSError):
                    if str(link.readlink()) in names:
                        found.append(str(link))
    return found


def mounts(mine: Path) -> list[str]:
    """What is mounted here, but for the small disks of other tests."""
    temporary = Path(tempfile.gettempdir())
    points = [
        Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return [
        str(point)
        for point in points
        if point.is_relative_to(mine) or not point.is_relative_to(temporary)
    ]


def test_the_end_leaves_nothing(tmp_path: Path, lab: Labs) -> None:
    mounted = mounts(tmp_path)
    ours = lab()
    home = Lab(tmp_path, Variant(stun=True, second=True, provider="cgnat"))
    serve(home.lan, 4000)
    names, pid = traces(home), home.networks.pid
    assert holders(names)
    assert len(inhabitants(home.networks.user)) == 4, "holder, listener, miniupnpd, turnserver"
    home.close()
    assert holders(names) == []
    assert not Path(f"/proc/{pid}").exists()
    assert mounts(tmp_path) == mounted
    assert holders(traces(ours)), "another lab has ended with it"


def test_the_end_leaves_nothing_even_if_the_holder_was_killed(tmp_path: Path, lab: Labs) -> None:
    home = Lab(tmp_path, Variant())
    names = traces(home)
    os.kill(home.networks.pid, signal.SIGKILL)
    until(lambda: f"/proc/{home.networks.pid}/ns/net" not in holders(names), "it is dead")
    assert holders(names), "miniupnpd has ended with it"
    home.close()
    assert holders(names) == []


TEST_FILE = """\
import os, subprocess, sys
from test_lab_itself import traces
def test_it(lab):
    home = lab(stun=True)
    detached = "import os, time; os.fork() or os.setsid() or time.sleep(1000)"
    home.lan.popen([sys.executable, "-c", detached]).wait()
    print(*traces(home), flush=True)
    {end}
"""


def run_tests(tmp_path: Path, end: str, before: str = "", **settings: str) -> tuple[int, str]:
    """Run a test that makes a lab, as a person would."""
    file = tmp_path / "test_inner.py"
    file.write_text(before + TEST_FILE.format(end=end))
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "system"), os.environ.get("PYTHONPATH", "")]
    words = [sys.executable, "-m", "pytest", "-p", "conftest", "-s", "-rA", str(file)]
    words += ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    words += ["-c", os.devnull]
    environ = {key: value for key, value in os.environ.items() if key != "SECURELINK_LAB"}
    environ |= {"PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environ |= settings
    inner = subprocess.run(
        words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE * 2
    )
    return inner.returncode, inner.stdout + inner.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise AssertionError('too bad')", 1), ("os.kill(os.getpid(), 9)", -signal.SIGKILL)],
    ids=["failed", "killed"],
)
@pytest.mark.usefixtures("lab")
def test_tests_that_do_not_end_well_leave_nothing(tmp_path: Path, end: str, code: int) -> None:
    mounted = mounts(tmp_path)
    ended, said = run_tests(tmp_path, end)
    assert ended == code, said
    names = set(re.findall(r"(?:user|net):\[\d+\]", said))
    assert len(names) == 4, said
    until(lambda: holders(names) == [], "the lab has ended")
    assert mounts(tmp_path) == mounted


def test_tools_that_are_missing_are_named(tmp_path: Path) -> None:
    lacking = "import hosts; hosts.NEEDED = ('no-such-tool',)\n"
    reason = "the router lab lacks no-such-tool: run tests/lab/install-tools"
    code, said = run_tests(tmp_path, "", lacking)
    assert (code, reason in said, "1 skipped" in said) == (0, True, True), said
    code, said = run_tests(tmp_path, "", lacking, SECURELINK_LAB="required")
    assert (code, reason in said, "1 error" in said) == (1, True, True), said
