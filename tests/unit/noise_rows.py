"""More rows for the table of handshake patterns: they prove the engine, the program needs none.

XX and IX send a static key sealed and in clear, IK has `ss`, NK an initiator without a static
key, KK a key of each side known beforehand, XXhfs an encapsulation key that goes in clear.
"""

from __future__ import annotations

from securelink.noise import PATTERNS, HandshakePattern

_NOBODY = ((), ())
_RESPONDER = ((), ("s",))
_BOTH = (("s",), ("s",))

ROWS = PATTERNS | {
    row.name: row
    for row in (
        HandshakePattern("XX", _NOBODY, (("e",), ("e", "ee", "s", "es"), ("s", "se"))),
        HandshakePattern("IX", _NOBODY, (("e", "s"), ("e", "ee", "se", "s", "es"))),
        HandshakePattern("IK", _RESPONDER, (("e", "es", "s", "ss"), ("e", "ee", "se"))),
        HandshakePattern("NK", _RESPONDER, (("e", "es"), ("e", "ee"))),
        HandshakePattern("KK", _BOTH, (("e", "es", "ss"), ("e", "ee", "se"))),
        HandshakePattern(
            "XXhfs", _NOBODY, (("e", "e1"), ("e", "ee", "ekem1", "s", "es"), ("s", "se"))
        ),
    )
}
