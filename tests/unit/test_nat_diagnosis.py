"""The verdicts: what was observed, and what is said of it, word by word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink import errors
from securelink.nat.diagnosis import (
    AddressKind,
    Observations,
    Reason,
    Verdict,
    diagnose,
    kind_of,
)
from securelink.nat.terms import Method, Protocol

HERE = {"port": 24819, "local": "192.168.1.20", "gateway": "192.168.1.1", "wanted_port": 24819}
ALL = {**HERE, "answered": tuple(Method), "external": "1.2.3.4"}
MAPPED = {**ALL, "mapped_port": 24819}
BY_HAND = "forward TCP 24819 to 192.168.1.20:24819 yourself."
OUTSIDE = "Try it from another network, such as a phone's."


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("1.2.3.4", "public"),
        (" 8.8.8.8 ", "public"),
        ("100.63.255.255", "public"),
        ("100.64.0.0", "shared"),
        ("100.127.255.255", "shared"),
        ("100.128.0.0", "public"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.32.0.1", "public"),
        ("192.168.255.255", "private"),
        ("", "empty"),
        ("0.0.0.0", "empty"),
        ("garbage", "empty"),
        ("2001:db8::1", "empty"),
        ("1.2.3", "empty"),
        ("224.0.0.1", "reserved"),
        ("127.0.0.1", "reserved"),
        ("169.254.1.1", "reserved"),
        ("192.0.2.1", "reserved"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_kinds_of_addresses(address: str, kind: str) -> None:
    assert kind_of(address) == AddressKind(kind)


SAID = {
    "no reply": (
        HERE,
        Verdict.LAN_ONLY,
        Reason.NO_ANSWER,
        "No router answered UPnP, NAT-PMP or PCP on 192.168.1.1.",
        f"Enable one of them in the router, or {BY_HAND}",
        errors.RouterSilent,
    ),
    "no reply to two": (
        {**HERE, "asked": (Method.PCP, Method.UPNP)},
        Verdict.LAN_ONLY,
        Reason.NO_ANSWER,
        "No router answered UPnP or PCP on 192.168.1.1.",
        f"Enable one of them in the router, or {BY_HAND}",
        errors.RouterSilent,
    ),
    "no reply to the one that was forced": (
        {**HERE, "asked": (Method.PCP,), "protocol": Protocol.UDP},
        Verdict.LAN_ONLY,
        Reason.NO_ANSWER,
        "No router answered PCP on 192.168.1.1.",
        "Enable PCP in the router, or forward UDP 24819 to 192.168.1.20:24819 yourself.",
        errors.RouterSilent,
    ),
    "no miniupnpc": (
        {**HERE, "upnp_missing": True},
        Verdict.LAN_ONLY,
        Reason.UPNP_MISSING,
        (
            "No router answered NAT-PMP or PCP on 192.168.1.1, and UPnP can't be asked: "
            "miniupnpc is not installed."
        ),
        f"Install miniupnpc (pip install miniupnpc), or {BY_HAND}",
        errors.UpnpMissing,
    ),
    "no miniupnpc for UPnP alone": (
        {**HERE, "upnp_missing": True, "asked": (Method.UPNP,), "local": None},
        Verdict.LAN_ONLY,
        Reason.UPNP_MISSING,
        "UPnP can't be asked: miniupnpc is not installed.",
        (
            "Install miniupnpc (pip install miniupnpc), or "
            "forward TCP 24819 to this computer:24819 yourself."
        ),
        errors.UpnpMissing,
    ),
    "no gateway": (
        {"port": 24819},
        Verdict.LAN_ONLY,
        Reason.NO_GATEWAY,
        "No IPv4 gateway found.",
        "Choose a network with --interface, or name the router with --gateway.",
        errors.NoGateway,
    ),
    "carrier-grade NAT": (
        {**MAPPED, "external": "100.64.0.2"},
        Verdict.BLOCKED,
        Reason.CARRIER_GRADE_NAT,
        "Carrier-grade NAT: the provider shares your public address, so no mapping can work.",
        "Ask for a public IPv4, or use IPv6 or a relay.",
        errors.NoUsableAddress,
    ),
    "double NAT": (
        {**MAPPED, "external": "192.168.0.2"},
        Verdict.BLOCKED,
        Reason.DOUBLE_NAT,
        "Double NAT: the router's own address is 192.168.0.2.",
        "Forward the port on the outer router too, or put it in bridge mode.",
        errors.NoUsableAddress,
    ),
    "another address outside": (
        {**MAPPED, "seen_from_outside": "1.2.3.9"},
        Verdict.BLOCKED,
        Reason.ADDRESS_DIFFERS,
        "Router says 1.2.3.4, the internet sees 1.2.3.9: a second NAT, a VPN or several uplinks.",
        "Leave the VPN, or forward the port on the outer router too.",
        errors.NatError,
    ),
    "no address": (
        {**ALL, "external": "", "failure": errors.RouterFailed},
        Verdict.BLOCKED,
        Reason.NO_PUBLIC_ADDRESS,
        "The router has no usable public address.",
        "See on the router's own page whether it is connected, and its address public.",
        errors.NoUsableAddress,
    ),
    "NAT-PMP code 3": (
        {**ALL, "external": None, "failure": errors.NoUsableAddress},
        Verdict.BLOCKED,
        Reason.NO_PUBLIC_ADDRESS,
        "The router has no usable public address.",
        "See on the router's own page whether it is connected, and its address public.",
        errors.NoUsableAddress,
    ),
    "no address, but the internet sees one": (
        {**ALL, "external": "", "seen_from_outside": "1.2.3.9"},
        Verdict.BLOCKED,
        Reason.NO_PUBLIC_ADDRESS,
        "The router has no usable public address.",
        (
            "The internet sees 1.2.3.9, another NAT's: "
            "forward the port there too, or ask for a public IPv4."
        ),
        errors.NoUsableAddress,
    ),
    "501": (
        {**ALL, "failure": errors.RouterFailed},
        Verdict.LAN_ONLY,
        Reason.ROUTER_FAILED,
        "The router failed the request; often it is itself behind NAT.",
        f"See on the router's own page whether its address is public, or {BY_HAND}",
        errors.RouterFailed,
    ),
    "606": (
        {**ALL, "failure": errors.MappingRefused},
        Verdict.LAN_ONLY,
        Reason.REFUSED,
        "The router refuses mappings from this computer.",
        f"Allow them in the router, or {BY_HAND}",
        errors.MappingRefused,
    ),
    "718, and no other will do": (
        {**ALL, "failure": errors.PortTaken, "owner": "192.168.1.30 (printer)"},
        Verdict.LAN_ONLY,
        Reason.PORT_TAKEN,
        "Port 24819 belongs to 192.168.1.30 (printer).",
        "Choose another with --external-port, or take any with --any-port.",
        errors.PortTaken,
    ),
    "718, and another port": (
        {**MAPPED, "mapped_port": 31000, "failure": errors.PortTaken},
        Verdict.MAPPED,
        Reason.OTHER_PORT,
        "Port 24819 belongs to another device or program; 31000 was taken instead.",
        OUTSIDE,
        errors.NatError,
    ),
    "725": (
        {**MAPPED, "permanent": True},
        Verdict.MAPPED,
        Reason.PERMANENT,
        "Only permanent mappings: removed on exit; after a crash `forward-port --remove 24819`.",
        OUTSIDE,
        errors.NatError,
    ),
    "ignored": (
        {**ALL, "failure": errors.RouterSilent},
        Verdict.LAN_ONLY,
        Reason.IGNORED,
        "The router ignores mapping requests.",
        f"Allow them in the router, or {BY_HAND}",
        errors.RouterSilent,
    ),
    "mapped, and a probe from outside fails": (
        {**MAPPED, "answers_outside": False},
        Verdict.BLOCKED,
        Reason.UNREACHABLE,
        "Mapped but unreachable: this computer's firewall, or a second NAT.",
        "Allow the port in this computer's firewall, then try again.",
        errors.NatError,
    ),
    "mapped": (
        {**MAPPED, "seen_from_outside": "1.2.3.4"},
        Verdict.MAPPED,
        Reason.MAPPED,
        "TCP 1.2.3.4:24819 is mapped, not verified from the internet.",
        OUTSIDE,
        errors.NatError,
    ),
    "mapped, and an earlier method failed": (
        {**MAPPED, "failure": errors.MappingRefused},
        Verdict.MAPPED,
        Reason.MAPPED,
        "TCP 1.2.3.4:24819 is mapped, not verified from the internet.",
        OUTSIDE,
        errors.NatError,
    ),
    "nothing was asked for": (
        ALL,
        Verdict.LAN_ONLY,
        Reason.NOT_MAPPED,
        "The router forwards no port to this computer.",
        f"Ask for one with --upnp, or {BY_HAND}",
        errors.NatError,
    ),
    "no router": (
        {**HERE, "local": "1.2.3.4"},
        Verdict.MAPPED,
        Reason.OWN_ADDRESS,
        "This computer's own address 1.2.3.4 is public: it needs no mapping.",
        "Allow TCP 24819 in this computer's firewall.",
        errors.NatError,
    ),
}


@pytest.mark.parametrize(
    ("seen", "verdict", "reason", "sentence", "hint", "error"), SAID.values(), ids=SAID
)
def test_verdicts(
    seen: dict,
    verdict: Verdict,
    reason: Reason,
    sentence: str,
    hint: str,
    error: type[errors.NatError],
) -> None:
    found = diagnose(Observations(**seen))
    assert (found.verdict, found.reason) == (verdict, reason)
    assert (found.sentence, found.hint) == (sentence, hint)
    raised = found.error()
    assert type(raised) is error
    assert raised.message + "." == sentence
    assert raised.hint == hint
    assert raised.exit_code == errors.ExitCode.ROUTER == 7


def test_every_reason_has_its_case() -> None:
    assert {case[2] for case in SAID.values()} == set(Reason)


ADDRESSES = st.sampled_from([None, "", "1.2.3.4", "10.0.0.1", "100.64.0.1", "224.0.0.1", "?"])


@given(
    st.builds(
        Observations,
        port=st.just(24819),
        local=ADDRESSES,
        gateway=ADDRESSES,
        asked=st.just(tuple(Method)),
        answered=st.sampled_from([(), (Method.PCP,), tuple(Method)]),
        external=ADDRESSES,
        mapped_port=st.sampled_from([None, 24819, 31000]),
        wanted_port=st.just(24819),
        permanent=st.booleans(),
        failure=st.sampled_from(
            [None, errors.NatError, errors.PortTaken, errors.MappingRefused, errors.RouterSilent]
        ),
        seen_from_outside=ADDRESSES,
        answers_outside=st.sampled_from([None, True, False]),
        upnp_missing=st.booleans(),
    )
)
def test_there_is_always_one_verdict_and_never_a_promise(seen: Observations) -> None:
    found = diagnose(seen)
    assert found.sentence.endswith(".")
    assert found.hint is not None
    assert found.hint.endswith(".")
    assert " reachable" not in found.sentence
    if found.verdict is Verdict.MAPPED and found.reason is not Reason.OWN_ADDRESS:
        assert seen.mapped_port is not None
        assert seen.external is None or kind_of(seen.external) is AddressKind.PUBLIC
