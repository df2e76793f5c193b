"""What `serve` shows a person: its first screen, then a line for each event, as `receive` does.

With `--json` every event is an object instead, and the first screen is the event `ready`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from securelink import events
from securelink.cli.formats import clock, file_line, message_line
from securelink.endpoints import kind_of
from securelink.nat.terms import Method

if TYPE_CHECKING:
    from securelink.cli.output import Output
    from securelink.service import Service


class Screen:
    """The lines of one run.

    Args:
        output: where they go.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._shown_invite: str | None = None

    def begin(self, service: Service) -> None:
        """Who and where this node is."""
        node, endpoints = service.node, service.registry.endpoints
        self.output.note(
            f"{node.config.node.name} ({node.identity.public.short}) listens on port"
            f" {service.server.port}"
        )
        for endpoint in endpoints:
            self.output.note(f"  {endpoint.kind + ':':<10}{endpoint}")
        if any(each.kind == "public" for each in endpoints):
            return
        if node.config.server.upnp:
            self.output.note("  public:   not known yet, the router is being asked")
        else:
            self.output.note(
                "  public:   not known; ask the router to forward the port with --upnp,"
            )
            self.output.note("            or forward one by hand, then: --public HOST:PORT")

    def invite(self, service: Service, *, lonely: bool) -> None:
        """How to pair with it."""
        if service.invite is None:
            return
        self._shown_invite = service.invite.encode()
        self.output.note("pair another machine (once, 24 h):")
        self.output.line(f"securelink join {self._shown_invite}")
        kinds = {each.kind for each in service.invite.endpoints}
        if "public" not in kinds:
            where = "inside this network" if "lan" in kinds else "on this machine"
            self.output.note(f"this invite works {where} only: no public address is in it")
        self.output.note(f"try it here: securelink send {'' if lonely else '--to me '}hello")

    def event(self, event: events.Event) -> None:
        """Show one event."""
        output = self.output
        if output.json:
            output.result(event)
            return
        match event:
            case events.Message():
                output.line(message_line(_ms(event.received_at), event.peer, event.text))
            case events.File():
                content = None if event.kind == "folder" else event.size
                line = file_line(
                    _ms(event.received_at),
                    event.peer,
                    event.name,
                    event.path,
                    content,
                    columns=output.columns,
                )
                output.line(line)
            case events.Undelivered():
                output.note(undelivered_line(event))
            case events.Paired():
                also = f", which calls itself {event.calls_itself!r}"
                output.note(
                    f"paired with {event.peer}{also if event.calls_itself != event.peer else ''}"
                )
                output.note(f"{event.peer} is {event.id}")
            case events.LinkUp():
                output.detail(f"{event.peer} is linked from {_shown(event.address)}")
            case events.LinkDown():
                output.detail(f"{event.peer} has left {_shown(event.address)}: {event.reason}")
            # Events come a little later than what the first screen shows already.
            case events.Invite() if self._shown_invite not in (None, event.invite):
                self._shown_invite = event.invite
                output.note("the addresses have changed; the same invite, with the new ones:")
                output.line(f"securelink join {event.invite}")
            case _:
                for line in router_lines(event):
                    output.note(line)


class ReceivingScreen(Screen):
    """The lines of one `receive`."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._has_shown_any = False

    def event(self, event: events.Event) -> None:
        """Show one event."""
        self._has_shown_any |= isinstance(event, events.Message | events.File)
        if isinstance(event, events.LinkUp) and not self.output.json:
            host = event.address.host if event.address else None
            where = f" ({kind_of(host)} {host})" if host else ""
            self.output.note(f"receiving from {event.peer}{where}")
        else:
            super().event(event)

    def took_what_waited(self) -> None:
        """Say that nothing was there, so that silence is not taken for a failure."""
        if not self._has_shown_any and not self.output.json:
            self.output.note("nothing new")


def undelivered_line(event: events.Undelivered) -> str:
    """What was not delivered, in a line: `14:05 not delivered to bob: photo.jpg (too long)`."""
    what = "a text" if event.item == "text" else event.item
    why = event.reason or event.status
    verb = "not confirmed by" if event.status == "unconfirmed" else "not delivered to"
    return f"{clock(_ms(event.at))} {verb} {event.peer}: {what} ({why})"


def router_lines(event: events.Event) -> list[str]:
    """What an event of the router says, in lines; none for any other event."""
    match event:
        case events.Mapped():
            outside = f"{event.external.host}:{event.external.port}"
            method = Method(event.method).label
            line = f"the router forwards {outside} to this machine ({method})"
            return [line, event.note] if event.note else [line]
        case events.MappingFailed():
            return [event.sentence, *([event.hint] if event.hint else [])]
        case events.MappingLost():
            return [f"the router forwards the port no longer: {event.reason}"]
        case events.PublicAddress():
            note = [event.note] if event.note else []
            if event.kind == "public":
                return [f"the public address is {event.host} ({_source(event.source)})", *note]
            return note or [f"the router's own address is {event.host}, which is not public"]
        case events.PublicAddressUnknown():
            return [f"the public address is not known: {event.sentence}"]
    return []


def _source(source: str) -> str:
    return {"interface": "this machine's own", "stun": "by STUN"}.get(
        source
    ) or f"by {Method(source).label}"


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _shown(address: events.Address | None) -> str:
    return f"{address.host} port {address.port}" if address else "an address that is gone"
