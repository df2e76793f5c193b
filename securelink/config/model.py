"""What can be configured, with its defaults: one type for each table of the file."""

from __future__ import annotations

import msgspec

from securelink import endpoints
from securelink.endpoints import Endpoint, Kind
from securelink.identity import PublicKey
from securelink.limits import Limits
from securelink.nat.terms import Method

DEFAULT_PORT = 24819

NAT_METHODS = ("auto", *Method)

LOG_LEVELS = ("debug", "info", "warning", "error")

CONFLICTS = ("rename", "skip", "overwrite")


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[node]`."""

    name: str = ""
    """What this node calls itself; empty in the file: the host name. Never empty once loaded."""


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[server]`: what `serve` does."""

    host: tuple[str, ...] = ()
    """The IP addresses to listen on; none stands for every interface, IPv4 and IPv6."""

    port: int = DEFAULT_PORT
    """The TCP port; 0 takes a free one."""

    public: str = ""
    """HOST[:PORT] of an address that a person forwarded by hand; empty: none."""

    announce: bool = True
    """Whether linked peers are told this node's present endpoints."""

    upnp: bool = False
    """Whether the router is asked to forward the port, by whatever `[nat] method` allows."""

    def public_endpoint(self, port: int) -> Endpoint | None:
        """Return the endpoint that `public` names, with *port* where it names none."""
        if not self.public:
            return None
        return Endpoint(Kind.PUBLIC, *endpoints.parse(self.public, default_port=port))


class NatConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[nat]`: how the router is asked."""

    method: str = "auto"
    """One of `NAT_METHODS`."""

    gateway: str = ""
    """The router's IPv4 address; empty: the default route's."""

    interface: str = ""
    """The name of the network interface whose default route counts; empty: any."""

    external_port: int = 0
    """The port on the router's outer side; 0: the same as ours."""

    lease: int = 3600
    """For how many seconds a mapping is asked for; it is renewed in time."""

    stun: tuple[str, ...] = ()
    """HOST[:PORT] of STUN servers that may be asked which address the internet sees."""

    public_address: bool = True
    """Whether the router is asked for its address when it is not asked to forward a port."""


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[client]`: what `send` does."""

    peer: str = ""
    """Who is meant without `--to`; empty: the only peer."""

    endpoint: str = "auto"
    """Which endpoints of the peer are tried: `auto`, a kind, or one HOST:PORT."""

    timeout: float = 30.0
    """For how many seconds a message is tried; 0: for ever."""

    queue: bool = False
    """Whether what could not be delivered in that time is delivered later."""


class PeerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer may send."""

    accept: bool
    """Whether it may send files at all."""

    largest: int
    """The most bytes of one file; 0: any."""

    quota: int
    """The most bytes of its folder; 0: any."""


class ConfiguredPeerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """`[files.peers.NAME]`: what differs for one peer; None: what `[files]` says."""

    accept: bool | None = None
    largest: int | None = None
    quota: int | None = None


class FilesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[files]`: what happens with the files that peers send."""

    folder: str = ""
    """Where they go, absolute or from `~`; empty: see `Home.files_folder`."""

    conflict: str = "rename"
    """What happens when there is such a name already, one of `CONFLICTS`."""

    accept: bool = True
    """Whether peers may send files at all."""

    largest: int = 0
    """The most bytes of one file; 0: any."""

    quota: int = 0
    """The most bytes of the folder of one peer; 0: any."""

    total: int = 0
    """The most bytes of the whole folder, all peers together; 0: any."""

    keep_free: int = 1 << 30
    """Bytes of the disk that are left alone."""

    checksum: bool = False
    """Whether the event of a received file holds its SHA-256."""

    partial_days: int = 30
    """After how many days an unfinished file is deleted; 0: never."""

    peers: dict[str, ConfiguredPeerFiles] = {}
    """What differs for one peer, by its name."""

    @property
    def accepts_any(self) -> bool:
        """Whether there is anybody who may send files."""
        return self.accept or any(own.accept for own in self.peers.values())

    def of(self, peer: str) -> PeerFiles:
        """Return what the peer with that name may send."""
        own = self.peers.get(peer, ConfiguredPeerFiles())
        return PeerFiles(
            accept=self.accept if own.accept is None else own.accept,
            largest=self.largest if own.largest is None else own.largest,
            quota=self.quota if own.quota is None else own.quota,
        )


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[log]`."""

    level: str = "warning"
    """The least that `serve` logs, one of `LOG_LEVELS`."""


class ConfiguredPeer(msgspec.Struct, frozen=True, kw_only=True):
    """`[peers.NAME]`: a peer that the configuration authorises and pins."""

    key: PublicKey
    endpoints: tuple[Endpoint, ...] = ()
    line: int | None = None
    """Where it stands in the file, if that could be told."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be configured."""

    node: NodeConfig = NodeConfig()
    server: ServerConfig = ServerConfig()
    nat: NatConfig = NatConfig()
    client: ClientConfig = ClientConfig()
    files: FilesConfig = FilesConfig()
    peers: dict[str, ConfiguredPeer] = {}
    limits: Limits = Limits()
    log: LogConfig = LogConfig()


TABLES: dict[str, type[msgspec.Struct]] = {
    "node": NodeConfig,
    "server": ServerConfig,
    "nat": NatConfig,
    "client": ClientConfig,
    "files": FilesConfig,
    "limits": Limits,
    "log": LogConfig,
}
"""The tables whose keys are fixed: all but `[peers]` and `[files.peers]`."""

KEYS: dict[str, dict[str, msgspec.structs.FieldInfo]] = {
    table: {field.name: field for field in msgspec.structs.fields(struct) if field.name != "peers"}
    for table, struct in TABLES.items()
}
"""Their keys, each with its type and default."""

PEER_FILES_KEYS = tuple(field.name for field in msgspec.structs.fields(ConfiguredPeerFiles))
"""The keys of `[files.peers.NAME]`, each also one of `[files]`."""
