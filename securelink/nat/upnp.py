"""UPnP through miniupnpc, whose calls block: one daemon thread for each router.

What miniupnpc leaves to its caller is done here. Its errors are bare exceptions with a text;
`getspecificportmapping` and `getgenericportmapping` answer None for every failure, a router that
is gone included; `addportmapping` takes an HTTP error with an HTML body for a success; numbers
are cut down to their type; nothing is escaped for XML.
"""

from __future__ import annotations

import asyncio
import ipaddress
import queue
import re
import threading
from collections.abc import Callable
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from securelink.errors import (
    MappingRefused,
    NatError,
    PermanentOnly,
    PortTaken,
    RouterFailed,
    RouterSilent,
    SamePortOnly,
    UpnpMissing,
)
from securelink.events import Address
from securelink.nat.search import search
from securelink.nat.terms import LONGEST_LEASE, Granted, Method, Protocol, Wanted, is_port

if TYPE_CHECKING:
    from securelink.nat.clock import Clock
    from securelink.nat.route import Gateway

T = TypeVar("T")

MOST_ENTRIES = 1000
"""A listing ends here, whatever the router says."""

PATIENCE = 8.0
"""Seconds in which a device that answered the search must describe itself."""

LONGEST_DESCRIPTION = 40
_DESCRIPTION = re.compile(rf"[A-Za-z0-9 -]{{1,{LONGEST_DESCRIPTION}}}")

_CONNECTED = frozenset({"Connected", "Up"})  # as miniupnpc's own UPNPIGD_IsConnected

_ERRORS: dict[str, tuple[type[NatError], str]] = {
    "Invalid Action": (RouterFailed, "401"),
    "Invalid Args": (PermanentOnly, "402"),  # what some routers say instead of 725
    "Action Failed": (RouterFailed, "501"),
    "Action not authorized": (MappingRefused, "606"),
    "ConflictInMappingEntry": (PortTaken, "718"),
    "SamePortValuesRequired": (SamePortOnly, "724"),
    "OnlyPermanentLeasesSupported": (PermanentOnly, "725"),
    "NoPortMapsAvailable": (PortTaken, "728"),
    "ConflictWithOtherMechanisms": (PortTaken, "729"),
    "Miniupnpc HTTP error": (RouterSilent, "no HTTP answer"),
    "Miniupnpc Socket error": (RouterSilent, "no network"),
    "No UPnP device discovered": (RouterSilent, "no description"),
}
"""miniupnpc's `strupnperror`, and the UPnP error codes of WANIPConnection:2, section 2.5."""


class Entry(msgspec.Struct, frozen=True):
    """One row of the router's table."""

    protocol: Protocol
    external_port: int
    local: Address
    description: str
    """As the device that asked for it wrote it: foreign text."""
    enabled: bool
    lease: int
    """Seconds; 0: none, or the router does not say."""

    @property
    def owner(self) -> str:
        """Whose it is, for a person."""
        shown = "".join(each if each.isprintable() else "?" for each in self.description)
        shown = shown[:LONGEST_DESCRIPTION].strip()
        return f"{self.local.host} ({shown})" if shown else self.local.host


def load() -> Any:
    """Return the module miniupnpc.

    Raises:
        UpnpMissing: it is not installed.
    """
    try:
        import miniupnpc
    except ImportError as error:
        raise UpnpMissing(
            "UPnP can't be used: miniupnpc is not installed",
            hint="install it with: pip install miniupnpc (it needs a C compiler on some systems)",
        ) from error
    return miniupnpc


class UpnpClient:
    """A UPnP router; made by `open`."""

    method = Method.UPNP

    def __init__(self, hand: _Hand, location: str) -> None:
        self.location = location
        """Where its description is; another one after a restart."""
        self._hand = hand
        self._connected = False

    @classmethod
    async def open(cls, gateway: Gateway, clock: Clock) -> UpnpClient:
        """Search for a router, and see that it is one.

        Raises:
            UpnpMissing: miniupnpc is not installed.
            RouterSilent: nobody answered the search.
            NatError: whoever answered is no router.
        """
        module = load()
        locations = await search(gateway, clock)
        failure: NatError = RouterSilent("no UPnP router answered the search")
        for location in locations:
            client = cls(_Hand(module), location)
            try:
                async with asyncio.timeout(PATIENCE):
                    await client._select()
            except TimeoutError:
                failure = RouterSilent(f"{location} takes too long to answer")
                client.close()
            except NatError as error:
                failure = error
                client.close()
            except BaseException:
                client.close()
                raise
            else:
                return client
        raise failure

    async def external_address(self) -> str | None:
        """Ask for it; "" while the router's outer side is not connected."""
        if not self._connected:
            await self._look_at_status()
        if not self._connected:
            return ""
        return str(await self._call(lambda device: device.externalipaddress())).strip()

    async def map(self, wanted: Wanted) -> Granted:
        """Make or renew it, with the lease and at the port that this router allows.

        Raises:
            PortTaken: saying who has the port.
        """
        if not _DESCRIPTION.fullmatch(wanted.description):
            raise ValueError("a description that would need escaping")
        external = await self.external_address() or ""
        port, lease, cleared = wanted.external_port, wanted.lease, False
        while True:
            # Some routers let a computer overwrite its own entries: another program's, or one
            # that a person made.
            found = await self.entry(wanted.protocol, port)
            if found is not None and not _is_ours(found, wanted):
                if found.local != wanted.local:
                    raise PortTaken(f"port {port} is taken", owner=found.owner)
                return _granted(external, found, wanted.lease, borrowed=True)
            try:
                await self._add(wanted, port, lease)
                break
            except PermanentOnly as error:
                if lease == 0:
                    raise RouterFailed(error.message) from error
                lease = 0
            except SamePortOnly as error:
                if port == wanted.local.port:
                    raise RouterFailed(error.message) from error
                port = wanted.local.port
            except PortTaken:
                if found is None or cleared:
                    raise
                # An old one of ours, that this router does not renew in place.
                cleared = True
                await self._delete(wanted.protocol, port)
        entry = await self.entry(wanted.protocol, port)
        if entry is None or entry.local != wanted.local or not entry.enabled:
            if entry is not None and _is_ours(entry, wanted):
                await self._delete(wanted.protocol, port)  # nobody else knows of it
            raise RouterFailed("the router said yes, and its table says no")
        return _granted(external, entry, lease)

    async def check(self, wanted: Wanted) -> Granted | None:
        """Read the mapping back, without renewing it; None if it is gone, or somebody else's."""
        external = await self.external_address() or ""
        entry = await self.entry(wanted.protocol, wanted.external_port)
        if entry is None or entry.local != wanted.local or not entry.enabled:
            return None
        return _granted(external, entry, wanted.lease, borrowed=not _is_ours(entry, wanted))

    async def unmap(self, wanted: Wanted, external_port: int) -> None:
        """Read it, and delete it if address, port and description are ours."""
        entry = await self.entry(wanted.protocol, external_port)
        if entry is None:
            # No such entry, or no router: only this tells them apart.
            await self._call(lambda device: device.externalipaddress())
        elif _is_ours(entry, wanted):
            await self._delete(wanted.protocol, external_port)

    async def entry(self, protocol: Protocol, external_port: int) -> Entry | None:
        """Return the entry for that port, None for every failure."""
        _check_port(external_port)
        try:
            found = await self._call(
                lambda device: device.getspecificportmapping(external_port, protocol.upper())
            )
        except UnicodeDecodeError:
            # What can't be read is not ours.
            somebody = Address("another device", 0)
            return Entry(protocol, external_port, somebody, "", enabled=True, lease=0)
        if found is None:
            return None
        host, port, description, enabled, lease = found
        return Entry(
            protocol, external_port, _address(host, port), description, bool(enabled), max(lease, 0)
        )

    async def entries(self) -> list[Entry]:
        """Return the router's whole table, without what can't be read.

        Raises:
            NatError: the router does not answer.
        """
        await self._call(lambda device: device.externalipaddress())
        found: dict[tuple[Protocol, int], Entry] = {}
        for index in range(MOST_ENTRIES):
            try:
                row = await self._call(methodcaller("getgenericportmapping", index))
            except UnicodeDecodeError:
                continue
            if row is None:
                break
            external_port, name, (host, port), description, enabled, _remote, lease = row
            if name.lower() not in tuple(Protocol) or not is_port(external_port):
                continue
            protocol = Protocol(name.lower())
            if (protocol, external_port) in found:
                break  # a router that goes round in circles
            found[protocol, external_port] = Entry(
                protocol, external_port, _address(host, port), description, enabled == "1", lease
            )
        return list(found.values())

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._hand.stop()

    # ---- inside

    async def _select(self) -> None:
        await self._call(lambda device: device.selectigd(self.location))
        await self._look_at_status()

    async def _look_at_status(self) -> None:
        # `selectigd` takes any device, and a router without a connection, for a router.
        status = await self._call(lambda device: device.statusinfo()[0])
        self._connected = status in _CONNECTED

    async def _add(self, wanted: Wanted, port: int, lease: int) -> None:
        _check_port(port)
        _check_port(wanted.local.port)
        if not 0 <= lease <= LONGEST_LEASE:
            raise ValueError(f"a lease outside 0 to {LONGEST_LEASE} seconds")
        await self._call(
            lambda device: device.addportmapping(
                port,
                wanted.protocol.upper(),
                wanted.local.host,
                wanted.local.port,
                wanted.description,
                "",
                lease,
            )
        )

    async def _delete(self, protocol: Protocol, port: int) -> None:
        _check_port(port)
        await self._call(lambda device: device.deleteportmapping(port, protocol.upper()))

    async def _call(self, function: Callable[[Any], T]) -> T:
        """Run *function* with the device in the thread, its errors told as ours."""
        try:
            return await self._hand.do(function)
        except UnicodeDecodeError:
            raise
        except Exception as error:
            if type(error) is not Exception:
                raise
            kind, meaning = _ERRORS.get(str(error), (RouterFailed, "unknown"))
            raise kind(f"the router answered UPnP: {error} ({meaning})") from error


class _Hand(threading.Thread):
    """Does one thing after the other with one miniupnpc object, which belongs to one thread.

    A daemon: Ctrl-C must not wait for a router that is silent for seconds.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(name="upnp", daemon=True)
        self._module = module
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Callable[[Any], Any], asyncio.Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
        self.start()

    async def do(self, function: Callable[[Any], T]) -> T:
        """Return what *function* returns; it gets the miniupnpc object."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))
        return await future

    def stop(self) -> None:
        """End after the jobs that wait."""
        self._jobs.put(None)

    def run(self) -> None:
        """Work until `stop`."""
        device = self._module.UPnP()
        while (job := self._jobs.get()) is not None:
            function, future = job
            result: Any = None
            failure: BaseException | None = None
            try:
                result = function(device)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
                failure = error
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, failure)
            except RuntimeError:  # the loop is closed: nobody is left to work for
                return


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)


def _granted(external: str, entry: Entry, asked: int, *, borrowed: bool = False) -> Granted:
    lease = min(entry.lease, asked) if entry.lease and asked else asked
    return Granted(
        Address(external, entry.external_port), lease, entry.description, borrowed=borrowed
    )


def _is_ours(entry: Entry, wanted: Wanted) -> bool:
    """Whether address, port and description are those of *wanted*."""
    names = (wanted.description, wanted.kept_as or wanted.description)
    return entry.local == wanted.local and entry.description in names


def _address(host: str, port: int) -> Address:
    try:
        return Address(str(ipaddress.IPv4Address(host.strip())), port)
    except ValueError:
        return Address("another device", port)


def _check_port(port: int) -> None:
    if not is_port(port):
        raise ValueError("a port outside 1 to 65535")
