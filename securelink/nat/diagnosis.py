"""What was observed at the router, judged: one verdict, one sentence, one next step.

A verdict is about this network's edge only. `mapped` never means reachable: nobody outside has
tried. `lan-only` says that there is no mapping, though one made by hand may work; `blocked` that
even with a mapping nobody outside gets through.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable

import msgspec

from securelink import errors, events
from securelink.nat.terms import Method, Protocol

_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
_PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


class AddressKind(enum.StrEnum):
    """What the address on a router's outer side says about the router's place."""

    PUBLIC = "public"
    PRIVATE = "private"
    """RFC 1918: another router stands before it."""
    SHARED = "shared"
    """100.64.0.0/10, RFC 6598: carrier-grade NAT."""
    EMPTY = "empty"
    """None, 0.0.0.0, or no IPv4 address at all."""
    RESERVED = "reserved"
    """Loopback, link-local, multicast, documentation and so on: nobody's."""


class Verdict(enum.StrEnum):
    """How far this machine can be reached through its router."""

    MAPPED = "mapped"
    LAN_ONLY = "lan-only"
    BLOCKED = "blocked"


class Reason(enum.StrEnum):
    """Why, for programs."""

    MAPPED = "mapped"
    OTHER_PORT = "other-port"
    PERMANENT = "permanent"
    OWN_ADDRESS = "own-address"
    NO_GATEWAY = "no-gateway"
    NO_ANSWER = "no-answer"
    UPNP_MISSING = "upnp-missing"
    CARRIER_GRADE_NAT = "carrier-grade-nat"
    DOUBLE_NAT = "double-nat"
    ADDRESS_DIFFERS = "address-differs"
    NO_PUBLIC_ADDRESS = "no-public-address"
    REFUSED = "refused"
    PORT_TAKEN = "port-taken"
    ROUTER_FAILED = "router-failed"
    IGNORED = "ignored"
    UNREACHABLE = "unreachable"
    NOT_MAPPED = "not-mapped"


class Observations(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. None stands for: not asked, or no answer."""

    port: int
    """The port that this machine listens on."""
    protocol: Protocol = Protocol.TCP
    local: str | None = None
    """This machine's own address in its network."""
    gateway: str | None = None
    asked: tuple[Method, ...] = tuple(Method)
    """The methods that were to be tried."""
    answered: tuple[Method, ...] = ()
    """Those that the router knows."""
    external: str | None = None
    """The router's word for its outer address; may be empty or nonsense."""
    mapped_port: int | None = None
    """The external port of a mapping that was made and read back."""
    wanted_port: int | None = None
    """The external port that was asked for first."""
    permanent: bool = False
    """The mapping has no end."""
    failure: type[errors.NatError] | None = None
    """What came of the mapping, if there is none."""
    owner: str = ""
    """Who holds the wanted port."""
    seen_from_outside: str | None = None
    """The address that a STUN server sees."""
    answers_outside: bool | None = None
    """Whether a probe from outside got through."""
    upnp_missing: bool = False
    """UPnP could not be asked, as miniupnpc is not installed."""


class Diagnosis(msgspec.Struct, frozen=True):
    """The verdict on one set of observations."""

    verdict: Verdict
    reason: Reason
    sentence: str
    """What is the case."""
    hint: str | None = None
    """The next step."""

    def error(self) -> errors.NatError:
        """The error to end a command with."""
        kind = _ERRORS.get(self.reason, errors.NatError)
        return kind(self.sentence.removesuffix("."), hint=self.hint)


def kind_of(address: str) -> AddressKind:
    """Return the kind of what a router calls its external address."""
    try:
        ip = ipaddress.IPv4Address(address.strip())
    except ValueError:
        return AddressKind.EMPTY
    if ip.is_unspecified:
        return AddressKind.EMPTY
    if ip in _SHARED:  # for Python neither private nor global
        return AddressKind.SHARED
    if any(ip in network for network in _PRIVATE):
        return AddressKind.PRIVATE
    if ip.is_multicast or not ip.is_global:
        return AddressKind.RESERVED
    return AddressKind.PUBLIC


def public_address(seen: Observations, source: Method | None) -> events.PublicAddress | None:
    """Return what is known of our address outside: what the internet sees before what it is called.

    Args:
        source: who told the router's address.
    """
    if seen.local is not None and kind_of(seen.local) is AddressKind.PUBLIC:
        host, by = seen.local, "interface"
    elif seen.seen_from_outside is not None and seen.seen_from_outside != seen.external:
        host, by = seen.seen_from_outside, "stun"
    elif seen.external and source is not None:
        host, by = seen.external, str(source)
    else:
        return None
    return events.PublicAddress(host=host, source=by, kind=kind_of(host))


def diagnose(seen: Observations) -> Diagnosis:
    """Return the verdict: the first rule that fits, the root cause before its consequences."""
    for fits, say in _RULES:
        if fits(seen):
            return say(seen)
    return _no_mapping(seen)


def _external_is(*kinds: AddressKind) -> Callable[[Observations], bool]:
    return lambda seen: seen.external is not None and kind_of(seen.external) in kinds


def _failed(*kinds: type[errors.NatError]) -> Callable[[Observations], bool]:
    return lambda seen: (
        seen.mapped_port is None and seen.failure is not None and issubclass(seen.failure, kinds)
    )


def _by_hand(seen: Observations) -> str:
    local = f"{seen.local or 'this computer'}:{seen.port}"
    return f"forward {seen.protocol.upper()} {seen.port} to {local} yourself"


def _own_address(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.MAPPED,
        Reason.OWN_ADDRESS,
        f"This computer's own address {seen.local} is public: it needs no mapping.",
        f"Allow {seen.protocol.upper()} {seen.port} in this computer's firewall.",
    )


def _no_gateway(_seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.NO_GATEWAY,
        "No IPv4 gateway found.",
        "Choose a network with --interface, or name the router with --gateway.",
    )


def _no_answer(seen: Observations) -> Diagnosis:
    asked = [method.label for method in reversed(Method) if method in seen.asked]
    if seen.upnp_missing and Method.UPNP in seen.asked:
        others = " or ".join(label for label in asked if label != Method.UPNP.label)
        nobody = f"No router answered {others} on {seen.gateway}, and " if others else ""
        return Diagnosis(
            Verdict.LAN_ONLY,
            Reason.UPNP_MISSING,
            f"{nobody}UPnP can't be asked: miniupnpc is not installed.",
            f"Install miniupnpc (pip install miniupnpc), or {_by_hand(seen)}.",
        )
    names = " or ".join(filter(None, (", ".join(asked[:-1]), asked[-1])))
    enable = "Enable one of them" if len(asked) > 1 else f"Enable {names}"
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.NO_ANSWER,
        f"No router answered {names} on {seen.gateway}.",
        f"{enable} in the router, or {_by_hand(seen)}.",
    )


def _carrier_grade(_seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.BLOCKED,
        Reason.CARRIER_GRADE_NAT,
        "Carrier-grade NAT: the provider shares your public address, so no mapping can work.",
        "Ask for a public IPv4, or use IPv6 or a relay.",
    )


def _double(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.BLOCKED,
        Reason.DOUBLE_NAT,
        f"Double NAT: the router's own address is {seen.external}.",
        "Forward the port on the outer router too, or put it in bridge mode.",
    )


def _differs(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.BLOCKED,
        Reason.ADDRESS_DIFFERS,
        f"Router says {seen.external}, the internet sees {seen.seen_from_outside}: "
        "a second NAT, a VPN or several uplinks.",
        "Leave the VPN, or forward the port on the outer router too.",
    )


def _no_address(seen: Observations) -> Diagnosis:
    # A router that keeps quiet about an address that is not public; or is it offline?
    hint = "See on the router's own page whether it is connected, and its address public."
    if seen.seen_from_outside is not None:
        outside = seen.seen_from_outside
        hint = (
            f"The internet sees {outside}, another NAT's: "
            "forward the port there too, or ask for a public IPv4."
        )
    return Diagnosis(
        Verdict.BLOCKED,
        Reason.NO_PUBLIC_ADDRESS,
        "The router has no usable public address.",
        hint,
    )


def _refused(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.REFUSED,
        "The router refuses mappings from this computer.",
        f"Allow them in the router, or {_by_hand(seen)}.",
    )


def _taken(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.PORT_TAKEN,
        f"Port {seen.wanted_port} belongs to {seen.owner or 'another device or program'}.",
        "Choose another with --external-port, or take any with --any-port.",
    )


def _router_failed(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.ROUTER_FAILED,
        "The router failed the request; often it is itself behind NAT.",
        f"See on the router's own page whether its address is public, or {_by_hand(seen)}.",
    )


def _ignored(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.IGNORED,
        "The router ignores mapping requests.",
        f"Allow them in the router, or {_by_hand(seen)}.",
    )


def _unreachable(_seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.BLOCKED,
        Reason.UNREACHABLE,
        "Mapped but unreachable: this computer's firewall, or a second NAT.",
        "Allow the port in this computer's firewall, then try again.",
    )


def _permanent(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.MAPPED,
        Reason.PERMANENT,
        "Only permanent mappings: removed on exit; "
        f"after a crash `forward-port --remove {seen.mapped_port}`.",
        _TRY_FROM_OUTSIDE,
    )


def _other_port(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.MAPPED,
        Reason.OTHER_PORT,
        f"Port {seen.wanted_port} belongs to {seen.owner or 'another device or program'}; "
        f"{seen.mapped_port} was taken instead.",
        _TRY_FROM_OUTSIDE,
    )


def _mapped(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.MAPPED,
        Reason.MAPPED,
        f"{seen.protocol.upper()} {seen.external or seen.gateway}:{seen.mapped_port} is mapped, "
        "not verified from the internet.",
        _TRY_FROM_OUTSIDE,
    )


def _no_mapping(seen: Observations) -> Diagnosis:
    return Diagnosis(
        Verdict.LAN_ONLY,
        Reason.NOT_MAPPED,
        "The router forwards no port to this computer.",
        f"Ask for one with --upnp, or {_by_hand(seen)}.",
    )


_TRY_FROM_OUTSIDE = "Try it from another network, such as a phone's."

_RULES: tuple[tuple[Callable[[Observations], bool], Callable[[Observations], Diagnosis]], ...] = (
    (
        lambda seen: seen.mapped_port is not None and seen.answers_outside is False,
        _unreachable,
    ),
    (
        lambda seen: seen.local is not None and kind_of(seen.local) is AddressKind.PUBLIC,
        _own_address,
    ),
    (lambda seen: seen.gateway is None, _no_gateway),
    (lambda seen: not seen.answered, _no_answer),
    (_external_is(AddressKind.SHARED), _carrier_grade),
    (_external_is(AddressKind.PRIVATE), _double),
    (
        lambda seen: (
            None not in (seen.external, seen.seen_from_outside)
            and kind_of(seen.external or "") is AddressKind.PUBLIC
            and seen.external != seen.seen_from_outside
        ),
        _differs,
    ),
    (_external_is(AddressKind.EMPTY, AddressKind.RESERVED), _no_address),
    (_failed(errors.NoUsableAddress), _no_address),
    (_failed(errors.MappingRefused), _refused),
    (_failed(errors.PortTaken), _taken),
    (_failed(errors.RouterSilent), _ignored),
    (_failed(errors.NatError), _router_failed),
    (lambda seen: seen.mapped_port is not None and seen.permanent, _permanent),
    (
        lambda seen: seen.mapped_port is not None and seen.mapped_port != seen.wanted_port,
        _other_port,
    ),
    (lambda seen: seen.mapped_port is not None, _mapped),
)

_ERRORS: dict[Reason, type[errors.NatError]] = {
    Reason.NO_GATEWAY: errors.NoGateway,
    Reason.NO_ANSWER: errors.RouterSilent,
    Reason.IGNORED: errors.RouterSilent,
    Reason.UPNP_MISSING: errors.UpnpMissing,
    Reason.CARRIER_GRADE_NAT: errors.NoUsableAddress,
    Reason.DOUBLE_NAT: errors.NoUsableAddress,
    Reason.NO_PUBLIC_ADDRESS: errors.NoUsableAddress,
    Reason.REFUSED: errors.MappingRefused,
    Reason.PORT_TAKEN: errors.PortTaken,
    Reason.ROUTER_FAILED: errors.RouterFailed,
}
