"""A router on loopback that speaks PCP, NAT-PMP and UPnP, and fails as a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from securelink.events import Address
from securelink.nat.route import Gateway

LOOPBACK = "127.0.0.1"
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
WAN_IP = "urn:schemas-upnp-org:service:WANIPConnection:1"
WAN_COMMON = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"

DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor>
</specVersion><device><deviceType>{IGD}</deviceType><friendlyName>fake</friendlyName>
<serviceList><service><serviceType>{WAN_COMMON}</serviceType><serviceId>c</serviceId>
<controlURL>/common</controlURL><eventSubURL>/e</eventSubURL><SCPDURL>/s</SCPDURL></service>
<service><serviceType>{WAN_IP}</serviceType><serviceId>i</serviceId>
<controlURL>/control</controlURL><eventSubURL>/e</eventSubURL><SCPDURL>/s</SCPDURL></service>
</serviceList></device></root>"""

HTML = "<html><body><h1>500 Internal Server Error</h1></body></html>"


@dataclass
class Row:
    """One forwarded port."""

    local: Address
    description: str | bytes = ""
    lease: int = 0
    enabled: str = "1"


@dataclass
class Script:
    """What the router does; a test changes it at any moment."""

    pcp: bool = True
    natpmp: bool = True
    upnp: bool = True
    external: str = "1.2.3.4"
    status: str = "Connected"
    epoch: int = 1000
    longest_lease: int = 100_000
    pcp_code: int = 0
    natpmp_code: int = 0
    natpmp_map_code: int = 0
    ignore_maps: bool = False
    codes: dict[str, int | list[int]] = field(default_factory=dict)
    """UPnP error by action; a list is used up from the front, 0 being no error."""
    html: set[str] = field(default_factory=set)
    """UPnP actions that are answered by HTTP 500 with HTML."""
    reported_lease: int | None = None
    enabled: str = "1"
    """Whether it forwards what it enters by UPnP."""
    delay: float = 0
    """Seconds before each HTTP answer."""
    change: Callable[[bytes], bytes | list[bytes]] = lambda data: data
    """What becomes of each PCP or NAT-PMP answer."""
    from_elsewhere: bool = False
    """PCP and NAT-PMP answers come from another port."""
    same_host_may_replace: bool = False
    rewrite: Callable[[str], str] = str
    """What becomes of descriptions."""
    pick_port: Callable[[int], int] = lambda port: port
    """Which port PCP and NAT-PMP grant."""


class FakeRouter:
    """Made by `running`.

    Attributes:
        table: what is forwarded, by protocol and external port.
        packets: the PCP and NAT-PMP requests so far.
        actions: the UPnP actions so far.
    """

    def __init__(self) -> None:
        self.script = Script()
        self.table: dict[tuple[str, int], Row] = {}
        self.nonces: dict[tuple[int, int], bytes] = {}
        self.packets: list[bytes] = []
        self.actions: list[str] = []
        self.searches = 0
        self.now: Callable[[], float] = lambda: 0
        """The clock by which its epoch grows; what is in the script is the epoch at 0."""
        self._connections: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport
        self._ssdp: asyncio.DatagramTransport
        self._http: asyncio.Server

    @property
    def gateway(self) -> Gateway:
        """As `route.find` would return it."""
        return Gateway(
            LOOPBACK,
            LOOPBACK,
            port=self._udp.get_extra_info("sockname")[1],
            search=((LOOPBACK, self._ssdp.get_extra_info("sockname")[1]),),
        )

    @property
    def http_port(self) -> int:
        """Where the control URL is at present."""
        return self._http.sockets[0].getsockname()[1]

    async def start_http(self) -> None:
        """Listen on a new port."""
        self._http = await asyncio.start_server(self._serve_http, LOOPBACK, 0)

    async def stop_http(self) -> None:
        """Let nobody in."""
        self._http.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await self._http.wait_closed()

    async def restart(self) -> None:
        """Forget everything, and come back with another control URL."""
        self.table.clear()
        self.nonces.clear()
        self.script.epoch = 1 - int(self.now())
        await self.stop_http()
        await self.start_http()

    @property
    def epoch(self) -> int:
        """Seconds since it lost its state."""
        return self.script.epoch + int(self.now())

    async def aclose(self) -> None:
        """End everything."""
        self._udp.close()
        self._ssdp.close()
        await self.stop_http()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # ---- PCP and NAT-PMP

    def datagram(self, data: bytes, sender: tuple[str, int]) -> None:
        self.packets.append(data)
        answer = None
        if data[0] == 2 and self.script.pcp:
            answer = self._pcp(data)
        elif data[0] == 2 and self.script.natpmp:
            answer = struct.pack(">BBHI", 0, 128 + data[1], 1, self.epoch)
        elif data[0] == 0 and self.script.natpmp:
            answer = self._natpmp(data)
        elif data[0] == 0 and self.script.pcp:
            answer = struct.pack(">BBBBII12x", 2, 128 + data[1], 0, 1, 0, self.epoch)
        if answer is None:
            return
        changed = self.script.change(answer)
        for each in [changed] if isinstance(changed, bytes) else changed:
            if self.script.from_elsewhere:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.bind((LOOPBACK, 0))
                    other.sendto(each, sender)
            else:
                self._udp.sendto(each, sender)

    def _pcp(self, data: bytes) -> bytes | None:
        code, lifetime = self.script.pcp_code, 0
        opcode = data[1]
        body = b""
        if opcode == 1:
            if self.script.ignore_maps:
                return None
            lifetime = min(int.from_bytes(data[4:8], "big"), self.script.longest_lease)
            nonce, protocol, internal, wanted = struct.unpack(">12sB3xHH", data[24:44])
            key = (protocol, internal)
            name = {6: "tcp", 17: "udp"}[protocol]
            if key in self.nonces and self.nonces[key] != nonce:
                code = 2
            external = self.script.pick_port(wanted)
            if code == 0 and lifetime:
                self.nonces[key] = nonce
                self.table[name, external] = Row(Address(LOOPBACK, internal), "pcp", lifetime)
            elif code == 0:
                self.nonces.pop(key, None)
                self._drop(name, internal)
            address = bytes(10) + b"\xff\xff" + socket.inet_aton(self.script.external or "0.0.0.0")
            body = nonce + struct.pack(">B3xHH", protocol, internal, external) + address
        epoch = self.epoch
        return struct.pack(">BBBBII12x", 2, 128 + opcode, 0, code, lifetime, epoch) + body

    def _natpmp(self, data: bytes) -> bytes | None:
        epoch = self.epoch
        if data[1] == 0:
            address = socket.inet_aton(self.script.external or "0.0.0.0")
            return struct.pack(">BBHI4s", 0, 128, self.script.natpmp_code, epoch, address)
        if self.script.ignore_maps:
            return None
        name = {1: "udp", 2: "tcp"}[data[1]]
        internal, wanted, lifetime = struct.unpack(">HHI", data[4:12])
        lifetime = min(lifetime, self.script.longest_lease)
        external = self.script.pick_port(wanted) if lifetime else 0
        code = self.script.natpmp_map_code
        if code == 0 and lifetime:
            self.table[name, external] = Row(Address(LOOPBACK, internal), "nat-pmp", lifetime)
        elif code == 0:
            self._drop(name, internal)
        return struct.pack(">BBHIHHI", 0, 128 + data[1], code, epoch, internal, external, lifetime)

    def _drop(self, name: str, internal: int) -> None:
        for key, row in list(self.table.items()):
            if key[0] == name and row.local == Address(LOOPBACK, internal):
                del self.table[key]

    # ---- UPnP

    def search(self, data: bytes, sender: tuple[str, int]) -> None:
        self.searches += 1
        target = re.search(rb"\nST: (\S+)", data)[1].decode()
        if self.script.upnp and target == IGD:
            self._ssdp.sendto(
                f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {IGD}\r\nUSN: uuid:x\r\n"
                f"LOCATION: http://{LOOPBACK}:{self.http_port}/desc.xml\r\n\r\n".encode(),
                sender,
            )

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with (
            contextlib.closing(writer),
            contextlib.suppress(ConnectionError, asyncio.IncompleteReadError),
        ):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            await asyncio.sleep(self.script.delay)
            if head.startswith(b"GET"):
                status, content = 200, DESCRIPTION.encode()
            else:
                action = re.search(rb"(?i)soapaction: *\"[^#]*#(\w+)\"", head)[1].decode()
                status, content = self._act(action, body.decode())
            writer.write(
                b"HTTP/1.1 %d X\r\nContent-Type: text/xml\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % (status, len(content)) + content
            )
            await writer.drain()

    def _act(self, action: str, body: str) -> tuple[int, bytes]:
        self.actions.append(action)
        code = self.script.codes.get(action, 0)
        if isinstance(code, list):
            code = code.pop(0) if code else 0
        if action in self.script.html:
            return 500, HTML.encode()
        if code:
            return _fault(code)
        argument = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        match action:
            case "GetStatusInfo":
                return _reply(
                    action,
                    NewConnectionStatus=self.script.status,
                    NewUptime="5",
                    NewLastConnectionError="ERROR_NONE",
                )
            case "GetExternalIPAddress":
                return _reply(action, NewExternalIPAddress=self.script.external)
            case "AddPortMapping":
                local = Address(argument["NewInternalClient"], int(argument["NewInternalPort"]))
                key = argument["NewProtocol"].lower(), int(argument["NewExternalPort"])
                there = self.table.get(key)
                if there is not None and there.local != local:
                    same_host = there.local.host == local.host
                    if not (same_host and self.script.same_host_may_replace):
                        return _fault(718)
                self.table[key] = Row(
                    local,
                    self.script.rewrite(argument["NewPortMappingDescription"]),
                    int(argument["NewLeaseDuration"]),
                    self.script.enabled,
                )
                return _reply(action)
            case "DeletePortMapping":
                key = argument["NewProtocol"].lower(), int(argument["NewExternalPort"])
                return _fault(714) if self.table.pop(key, None) is None else _reply(action)
            case "GetSpecificPortMappingEntry":
                key = argument["NewProtocol"].lower(), int(argument["NewExternalPort"])
                row = self.table.get(key)
                return _fault(714) if row is None else self._reply_row(action, key, row)
            case "GetGenericPortMappingEntry":
                rows = list(self.table.items())
                index = int(argument["NewPortMappingIndex"])
                return _fault(713) if index >= len(rows) else self._reply_row(action, *rows[index])
        return _fault(401)

    def _reply_row(self, action: str, key: tuple[str, int], row: Row) -> tuple[int, bytes]:
        lease = row.lease if self.script.reported_lease is None else self.script.reported_lease
        return _reply(
            action,
            NewRemoteHost="",
            NewExternalPort=str(key[1]),
            NewProtocol=key[0].upper(),
            NewInternalPort=str(row.local.port),
            NewInternalClient=row.local.host,
            NewEnabled=row.enabled,
            NewPortMappingDescription=row.description,
            NewLeaseDuration=str(lease),
        )


def _reply(action: str, **arguments: str | bytes) -> tuple[int, bytes]:
    inner = b"".join(
        b"<%s>%s</%s>"
        % (name.encode(), value if isinstance(value, bytes) else value.encode(), name.encode())
        for name, value in arguments.items()
    )
    return 200, (
        b'<?xml version="1.0"?><s:Envelope '
        b'xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        b'<u:%sResponse xmlns:u="%s">%s</u:%sResponse></s:Body></s:Envelope>'
        % (action.encode(), WAN_IP.encode(), inner, action.encode())
    )


def _fault(code: int) -> tuple[int, bytes]:
    return 500, (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
        "<s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"
        '<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{code}</errorCode><errorDescription>x</errorDescription>"
        "</UPnPError></detail></s:Fault></s:Body></s:Envelope>"
    ).encode()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, tuple[str, int]], None]) -> None:
        self.datagram_received = take


@contextlib.asynccontextmanager
async def running(**script: object) -> AsyncIterator[FakeRouter]:
    """A router, for the block."""
    router = FakeRouter()
    for name, value in script.items():
        setattr(router.script, name, value)
    loop = asyncio.get_running_loop()
    router._udp, _ = await loop.create_datagram_endpoint(
        lambda: _Udp(router.datagram), local_addr=(LOOPBACK, 0)
    )
    router._ssdp, _ = await loop.create_datagram_endpoint(
        lambda: _Udp(router.search), local_addr=(LOOPBACK, 0)
    )
    await router.start_http()
    try:
        yield router
    finally:
        await router.aclose()
