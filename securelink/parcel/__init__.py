"""What one `send` has for one recipient: its items as rows of the outbox, and what became of them.

`core.Parcel` is told how far they are and decides what follows. `putting.Putting` puts them, a
folder's or a pipe's while the first of them are already on their way; `rows.Rows` are those that
have not come to an end; `ends` is how one comes to it.
"""

from securelink.parcel.core import Parcel
from securelink.parcel.ends import let_go

__all__ = ["Parcel", "let_go"]
