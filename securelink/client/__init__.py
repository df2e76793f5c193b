"""The sending side: what one recipient is to get, from the outbox to the receipts.

What a caller learns is the truth: `delivered` means that the right machine has it on disk, and
whatever may have left without a receipt is kept and confirmed by the next link under the same ID.

`core.Sending` is one call for one recipient, by the frozen `terms.Terms`. It goes over links that
other processes of the node have (`others`), or over one that is dialled here (`own`); `outcome`
says what became of it, and `remains` how it stands when the call was cut short.
"""

from securelink.client.core import Sending
from securelink.client.outcome import Outcome
from securelink.client.remains import Remains

__all__ = ["Outcome", "Remains", "Sending"]
