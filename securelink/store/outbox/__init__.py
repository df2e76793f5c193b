"""Messages that still owe a receipt: one row each, from before its first byte leaves.

Texts are put here; files by `outbox_files`, into the same table, and what becomes of a row is
told here for both. Only the queues are apart.

A row is *owned* by the `send` that made it while that process lives, and delivered by it alone; or
*queued* for whichever process has a link to its peer: because it has no owner, or because its
owner, who has no address of the peer, *shares* it. `TRANSITIONS` is the whole of what can happen
to it.

`rows` says what a row is; `putting` puts and hands it, `settling` ends it, `pruning` ends and
forgets it when its time is over; `queue` reads what waits for any process.
"""

from securelink.store.outbox.pruning import (
    DAY,
    ENDED_KEPT,
    HANDED_KEPT,
    LIFE,
    LONGEST_LIFE,
    has_expired,
    prune,
)
from securelink.store.outbox.putting import (
    end_of_life,
    hand,
    keep,
    put,
    put_again,
    release,
    share,
    take_back,
)
from securelink.store.outbox.queue import (
    QUEUED,
    count_queued,
    count_where,
    peers_where,
    peers_with_queued,
    queued,
)
from securelink.store.outbox.rows import (
    FORGOTTEN,
    TRANSITIONS,
    OutboxRow,
    State,
    get,
    marks,
    states,
)
from securelink.store.outbox.settling import (
    CANCELLED,
    bury_owner,
    cancel,
    cancel_peer,
    delivered,
    owners,
    refused,
    withdraw,
)

__all__ = [
    "CANCELLED",
    "DAY",
    "ENDED_KEPT",
    "FORGOTTEN",
    "HANDED_KEPT",
    "LIFE",
    "LONGEST_LIFE",
    "QUEUED",
    "TRANSITIONS",
    "OutboxRow",
    "State",
    "bury_owner",
    "cancel",
    "cancel_peer",
    "count_queued",
    "count_where",
    "delivered",
    "end_of_life",
    "get",
    "hand",
    "has_expired",
    "keep",
    "marks",
    "owners",
    "peers_where",
    "peers_with_queued",
    "prune",
    "put",
    "put_again",
    "queued",
    "refused",
    "release",
    "share",
    "states",
    "take_back",
    "withdraw",
]
