"""The files that go over one link: rows of the store, opened ahead, sent one after the other.

A row is committed as `handed` before the item that may complete it is sealed, its END or a
folder's OFFER: so a row that is still waiting was certainly not delivered. For small files that
is done for many at once, when they are opened.

`core.Dispatch` is the source that the link's session asks for what goes next. `ahead.Ahead` reads
the rows, opens what they stand for and drops those that can't be sent; `under_way.UnderWay` are
the files from then on until their answers. Whoever wants to know how far they are is a
`watch.Watch`.
"""

from securelink.dispatch.ahead import Which
from securelink.dispatch.core import Dispatch
from securelink.dispatch.watch import NOBODY, Watch

__all__ = ["NOBODY", "Dispatch", "Watch", "Which"]
