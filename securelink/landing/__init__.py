"""The receiving disk: parts that grow, and the names that whole files get.

Everything here waits for the disk, so it is called in a thread. Below the root no symbolic link
is ever followed, also not one that takes a folder's place at the wrong moment: each component is
opened in the folder before it.
"""

from securelink.errors import PartInUse
from securelink.landing.folder import Existing, Kind
from securelink.landing.landing import Landing
from securelink.landing.part import Part, part_path
from securelink.landing.recovery import Found, recover
from securelink.landing.terms import Conflict, Landed, Ready
from securelink.landing.way import prepare

__all__ = [
    "Conflict",
    "Existing",
    "Found",
    "Kind",
    "Landed",
    "Landing",
    "Part",
    "PartInUse",
    "Ready",
    "part_path",
    "prepare",
    "recover",
]
