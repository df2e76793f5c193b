"""PCP and NAT-PMP, spoken with a router. Both make a mapping again by asking for it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import (
    MappingRefused,
    NatError,
    NoUsableAddress,
    PortTaken,
    RouterFailed,
    RouterSilent,
)
from securelink.events import Address
from securelink.nat import natpmp, pcp
from securelink.nat.datagrams import ask
from securelink.nat.terms import Granted, Method, Wanted
from securelink.nat.timing import Epoch, EpochRecord

if TYPE_CHECKING:
    from securelink.nat.clock import Clock
    from securelink.nat.route import Gateway

_PCP_ERRORS: dict[int, type[NatError]] = {
    pcp.ResultCode.NOT_AUTHORIZED: MappingRefused,
    pcp.ResultCode.NETWORK_FAILURE: NoUsableAddress,
    pcp.ResultCode.USER_EX_QUOTA: MappingRefused,
    pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL: PortTaken,
    pcp.ResultCode.ADDRESS_MISMATCH: MappingRefused,
}

_NATPMP_ERRORS: dict[int, type[NatError]] = {
    natpmp.ResultCode.NOT_AUTHORIZED: MappingRefused,
    natpmp.ResultCode.NETWORK_FAILURE: NoUsableAddress,
}


class PcpClient:
    """A PCP server.

    Args:
        epochs: what it has said of its state; outlives this client.
    """

    method = Method.PCP

    def __init__(self, gateway: Gateway, clock: Clock, epochs: EpochRecord) -> None:
        self._gateway = gateway
        self._clock = clock
        self._epochs = epochs

    async def greet(self) -> None:
        """See whether it is there.

        Raises:
            RouterSilent: it is not, or speaks another version.
            RouterFailed: it is, and can't be used.
        """
        try:
            response = await ask(
                pcp.encode_announce(self._gateway.local),
                pcp.decode_announce,
                to=(self._gateway.host, self._gateway.port),
                local=self._gateway.local,
                clock=self._clock,
            )
        except pcp.OtherVersion as error:
            raise RouterSilent(f"{self._gateway.host} does not speak PCP") from error
        self._judge(response)

    async def external_address(self) -> str | None:
        """PCP has no way to ask without a mapping."""
        return None

    async def map(self, wanted: Wanted) -> Granted:
        """Make or renew the mapping."""
        response = await self._request(wanted, wanted.external_port, wanted.lease)
        return Granted(
            Address(response.external_address, response.external_port),
            response.lifetime,
            restarted=self._epochs.take_restarted(),
        )

    async def unmap(self, wanted: Wanted, external_port: int) -> None:
        """Delete it; the nonce keeps the router from deleting what is not ours."""
        _refuse_foreign(wanted, self._gateway)
        await self._request(wanted, external_port, 0)

    def close(self) -> None:
        """Nothing stays open."""

    async def _request(self, wanted: Wanted, external_port: int, lease: int) -> pcp.MapResponse:
        request = pcp.MapRequest(
            self._gateway.local,
            wanted.nonce,
            wanted.protocol,
            wanted.local.port,
            external_port,
            lease,
        )
        try:
            response = await ask(
                pcp.encode_map(request),
                lambda data: pcp.decode_map(data, request),
                to=(self._gateway.host, self._gateway.port),
                local=self._gateway.local,
                clock=self._clock,
            )
        except pcp.OtherVersion as error:
            raise RouterSilent(f"{self._gateway.host} no longer speaks PCP") from error
        self._judge(response)
        return response

    def _judge(self, response: pcp.Response) -> None:
        self._epochs.note(Epoch(response.epoch, self._clock.now()))
        if response.result != pcp.ResultCode.SUCCESS:
            raise _error("PCP", response.result, pcp.ResultCode, _PCP_ERRORS)


class NatPmpClient:
    """A NAT-PMP router.

    Args:
        epochs: what it has said of its state; outlives this client.
    """

    method = Method.NAT_PMP

    def __init__(self, gateway: Gateway, clock: Clock, epochs: EpochRecord) -> None:
        self._gateway = gateway
        self._clock = clock
        self._epochs = epochs
        self._greeting: natpmp.AddressResponse | None = None

    async def greet(self) -> None:
        """See whether it is there; one that has no address is.

        Raises:
            RouterSilent: it is not, or speaks another version.
        """
        self._greeting = await self._ask_address()

    async def external_address(self) -> str | None:
        """Ask; the first time, the greeting has asked already."""
        response, self._greeting = self._greeting or await self._ask_address(), None
        if response.result == natpmp.ResultCode.NETWORK_FAILURE:
            return ""
        self._judge(response)
        return response.address

    async def map(self, wanted: Wanted) -> Granted:
        """Make or renew the mapping."""
        response = await self._request(
            natpmp.MapRequest(
                wanted.protocol, wanted.local.port, wanted.external_port, wanted.lease
            )
        )
        address = await self.external_address()
        return Granted(
            Address(address or "", response.external_port),
            response.lifetime,
            restarted=self._epochs.take_restarted(),
        )

    async def unmap(self, wanted: Wanted, external_port: int) -> None:
        """Delete it; the router goes by our own address and port."""
        del external_port  # section 3.4: zero
        _refuse_foreign(wanted, self._gateway)
        await self._request(natpmp.MapRequest(wanted.protocol, wanted.local.port, 0, 0))

    def close(self) -> None:
        """Nothing stays open."""

    async def _request(self, request: natpmp.MapRequest) -> natpmp.MapResponse:
        try:
            response = await ask(
                natpmp.encode_map(request),
                lambda data: natpmp.decode_map(data, request),
                to=(self._gateway.host, self._gateway.port),
                local=self._gateway.local,
                clock=self._clock,
            )
        except natpmp.OtherVersion as error:
            raise RouterSilent(f"{self._gateway.host} no longer speaks NAT-PMP") from error
        self._epochs.note(Epoch(response.epoch, self._clock.now()))
        self._judge(response)
        return response

    async def _ask_address(self) -> natpmp.AddressResponse:
        try:
            response = await ask(
                natpmp.encode_address(),
                natpmp.decode_address,
                to=(self._gateway.host, self._gateway.port),
                local=self._gateway.local,
                clock=self._clock,
            )
        except natpmp.OtherVersion as error:
            raise RouterSilent(f"{self._gateway.host} does not speak NAT-PMP") from error
        self._epochs.note(Epoch(response.epoch, self._clock.now()))
        return response

    def _judge(self, response: natpmp.Response) -> None:
        if response.result != natpmp.ResultCode.SUCCESS:
            raise _error("NAT-PMP", response.result, natpmp.ResultCode, _NATPMP_ERRORS)


def _refuse_foreign(wanted: Wanted, gateway: Gateway) -> None:
    # The router goes by the address that the packet comes from: another mapping would be hit.
    if wanted.local.host != gateway.local:
        raise RouterFailed(f"it was mapped for {wanted.local.host}, and only from there it ends")


def _error(
    protocol: str,
    code: int,
    codes: type[pcp.ResultCode | natpmp.ResultCode],
    kinds: dict[int, type[NatError]],
) -> NatError:
    name = codes(code).name if code in codes.__members__.values() else "an unknown error"
    return kinds.get(code, RouterFailed)(f"the router answered {protocol}: {name}, code {code}")
