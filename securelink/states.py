"""Where a link stands, and what moves it: one table.

`TRANSITIONS` is the whole of it. An input that the table does not have for the present state is
an error of whoever made it: ours (`LocalProtocolError`) for a call, the peer's
(`RemoteProtocolError`) for what it sent.
"""

from __future__ import annotations

import enum

from securelink.errors import LocalProtocolError

MESSAGE_1_SIZE = 4 + 1248
"""The header of four bytes, then the handshake message."""

MESSAGE_2_SIZE = 1216
MESSAGE_3_SIZE = 320


class State(enum.Enum):
    """Where a session stands; the values say it in words."""

    AWAIT_MESSAGE_1 = "the client has proven nothing yet"
    AWAIT_MESSAGE_2 = "message 1 is sent"
    AWAIT_MESSAGE_3 = "message 2 is sent"
    VERIFIED = "the server holds its key"
    DECIDING = "the client holds its key, and waits for an answer"
    AWAIT_READY = "message 3 is sent"
    OPEN = "messages flow"
    CLOSE_SENT = "our CLOSE is sent"
    CLOSE_RECEIVED = "their CLOSE is here"
    CLOSED = "the link ended in order"
    FAILED = "the link ended out of order"

    # Members are singletons, and enum's own hash is a call in Python at every look-up.
    __hash__ = object.__hash__


class Input(enum.Enum):
    """What moves a session from one state to another."""

    MESSAGE_1 = "message 1 verified"
    MESSAGE_2 = "message 2 verified"
    MESSAGE_3 = "message 3 verified"
    PROCEED = "proceed()"
    ADMIT = "admit()"
    DENY = "deny()"
    READY = "READY received"
    DENIED = "DENY received"
    CLOSE = "close()"
    CLOSE_RECEIVED = "CLOSE received"
    FAIL = "broken rule, cut or silence"


ENDED = frozenset({State.CLOSED, State.FAILED})
RECEIVING = frozenset({State.AWAIT_READY, State.OPEN, State.CLOSE_SENT})
"""In these, records may arrive."""

SENDING = frozenset({State.OPEN, State.CLOSE_RECEIVED})
"""In these, receipts, refusals and heartbeats may be sent; all else only in OPEN."""

LINKED = frozenset({State.OPEN, State.CLOSE_SENT, State.CLOSE_RECEIVED})
"""The handshake is over and the link is not."""

TRANSITIONS: dict[tuple[State, Input], State] = {
    # the server
    (State.AWAIT_MESSAGE_1, Input.MESSAGE_1): State.AWAIT_MESSAGE_3,
    (State.AWAIT_MESSAGE_3, Input.MESSAGE_3): State.DECIDING,
    (State.DECIDING, Input.ADMIT): State.OPEN,
    (State.DECIDING, Input.DENY): State.CLOSED,
    # the client
    (State.AWAIT_MESSAGE_2, Input.MESSAGE_2): State.VERIFIED,
    (State.VERIFIED, Input.PROCEED): State.AWAIT_READY,
    (State.AWAIT_READY, Input.READY): State.OPEN,
    (State.AWAIT_READY, Input.DENIED): State.CLOSED,
    # both
    (State.OPEN, Input.CLOSE): State.CLOSE_SENT,
    (State.OPEN, Input.CLOSE_RECEIVED): State.CLOSE_RECEIVED,
    (State.CLOSE_SENT, Input.CLOSE_RECEIVED): State.CLOSED,
    (State.CLOSE_RECEIVED, Input.CLOSE): State.CLOSED,
    **{(state, Input.FAIL): State.FAILED for state in State if state not in ENDED},
}


def after(state: State, moved_by: Input) -> State:
    """The state that an input leads to; LocalProtocolError if it is not possible in `state`."""
    try:
        return TRANSITIONS[state, moved_by]
    except KeyError:
        raise LocalProtocolError(f"{moved_by.value} is not possible when {state.value}") from None
