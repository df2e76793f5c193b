"""The files that come over a link: from the offer to the receipt.

`core.Incoming` stands in the event loop and never touches the disk; `intake.Intake` does all of
that in a thread of the link. Between them go the values of `talk`; what has to be in the store
goes through the loop, many at a time, and comes back committed.
"""

from securelink.incoming.core import Arriving, Incoming
from securelink.incoming.recovery import prepare, recover

__all__ = ["Arriving", "Incoming", "prepare", "recover"]
