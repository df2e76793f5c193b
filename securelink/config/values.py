"""One value: from TOML, or from the text of a variable or flag, to what the model holds.

Every reader takes any value, and raises ValueError with what it expected, or a SecurelinkError
of the module that knows better.
"""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from securelink import endpoints, names
from securelink.config import sizes
from securelink.config.model import CONFLICTS, DEFAULT_PORT, KEYS, LOG_LEVELS, NAT_METHODS
from securelink.endpoints import Kind
from securelink.errors import SecurelinkError
from securelink.nat import stun
from securelink.nat.terms import LARGEST_PORT, LONGEST_LEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.config.document import Place

_T = TypeVar("_T")

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_LARGEST = 1e9
"""Beyond it, thirty years in seconds, the clocks' arithmetic breaks before anything is bounded."""

_MAX_MESSAGE = 1 << 31
_INTERFACE = re.compile(r"[^\s/-][^\s/]{0,14}")
"""As long as Linux allows; no dash in front, as it becomes a command's argument on macOS."""
_LONGEST_SHOWN = 60


def read(table: str, key: str, value: object, place: Place) -> Any:
    """Return the value for the model's *table* and *key*.

    Raises:
        ConfigError: naming *place*, what is wrong with it, and what would be right.
    """
    dotted = f"{table}.{key}"
    reader = size if dotted in _SIZES else _BY_TYPE[KEYS[table][key].type]
    typed = at(place, reader, value)
    check = _CHECKS.get(dotted) or (_positive if table == "limits" else None)
    return typed if check is None else at(place, check, typed)


def at(place: Place, reader: Callable[[Any], _T], value: object) -> _T:
    """Return what *reader* makes of *value*, with its errors told as those of *place*."""
    try:
        return reader(value)
    except SecurelinkError as error:
        raise place.error(error.message, error.hint) from None
    except ValueError as error:
        raise place.error(str(error)) from None


def text(value: object) -> str:
    """Return *value*, which is a text."""
    if isinstance(value, str):
        return value.strip()
    raise ValueError(f"expected a text in quotes, not {_shown(value)}")


def texts(value: object) -> tuple[str, ...]:
    """Return the texts in *value*: a list of them, or one with commas."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list | tuple):
        return tuple(filter(None, map(text, value)))
    raise ValueError(f"expected a text in quotes or a list of them, not {_shown(value)}")


def address(value: str) -> tuple[str, int]:
    """Return the host and port of a peer's HOST[:PORT]."""
    return endpoints.parse(value, default_port=DEFAULT_PORT)


def size(value: object) -> int:
    """Return the bytes that *value* stands for, a whole number or a text such as `1 GiB`."""
    found = sizes.parse(value) if isinstance(value, str) else value
    if isinstance(found, int) and not isinstance(found, bool):
        if 0 <= found <= sizes.LARGEST_SIZE:
            return found
        raise ValueError(f"expected 0 or more bytes, and {sizes.LARGEST_SIZE} at most, not {found}")
    raise ValueError(f'expected a size such as "500 MB", "1 GiB" or 0, not {_shown(value)}')


def _whole(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"expected a whole number, not {_shown(value)}")


def _number(value: object) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"expected a number, not {_shown(value)}") from None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError(f"expected a number, not {_shown(value)}")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError(f"expected true or false, not {_shown(value)}")


_BY_TYPE: dict[Any, Callable[[object], Any]] = {
    str: text,
    int: _whole,
    float: _number,
    bool: _truth,
    tuple[str, ...]: texts,
}


def _positive(value: float) -> float:
    if 0 < value <= _LARGEST:
        return value
    raise ValueError(f"expected more than 0, and {_LARGEST:.0f} at most, not {value:g}")


def _not_negative(value: float) -> float:
    if 0 <= value <= _LARGEST:
        return value
    raise ValueError(f"expected 0 or more, and {_LARGEST:.0f} at most, not {value:g}")


def _max_message(value: int) -> int:
    if 1 <= value <= _MAX_MESSAGE:
        return value
    raise ValueError(f"expected 1 to {_MAX_MESSAGE} bytes, not {value}")


def _port(value: int) -> int:
    if 0 <= value <= 65535:
        return value
    raise ValueError(f"expected a port, 1 to 65535, or 0 for a free one, not {value}")


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for host in value:
        try:
            found.append(str(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            raise ValueError(
                f"expected IP addresses of this machine, or none for every interface, not {host!r}"
            ) from None
    return tuple(dict.fromkeys(found))


def _name(value: str) -> str:
    return names.check(value) if value else value


def _public(value: str) -> str:
    if value:
        address(value)
    return value


def _endpoint(value: str) -> str:
    choices = ("auto", *Kind)
    if value in choices:
        return value
    try:
        host, port = endpoints.parse(value)
    except SecurelinkError as error:
        raise ValueError(f"expected {', '.join(choices)} or HOST:PORT: {error.message}") from None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _method(value: str) -> str:
    if value in NAT_METHODS:
        return value
    raise ValueError(f"expected one of {', '.join(NAT_METHODS)}, not {value!r}")


def _gateway(value: str) -> str:
    if not value:
        return value
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        raise ValueError(f"expected the router's IPv4 address, not {value!r}") from None
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise ValueError(f"expected the router's IPv4 address, and {value} is no machine's")
    return str(address)


def _interface(value: str) -> str:
    if not value or _INTERFACE.fullmatch(value):
        return value
    raise ValueError(f"expected the name of a network interface, such as eth0, not {value!r}")


def _external_port(value: int) -> int:
    if 0 <= value <= LARGEST_PORT:
        return value
    raise ValueError(f"expected a port, 1 to {LARGEST_PORT}, or 0 for our own, not {value}")


def _lease(value: int) -> int:
    if 1 <= value <= LONGEST_LEASE:
        return value
    raise ValueError(f"expected 1 to {LONGEST_LEASE} seconds, not {value}")


def _stun(value: tuple[str, ...]) -> tuple[str, ...]:
    for server in value:
        endpoints.parse(server, default_port=stun.PORT)
    return tuple(dict.fromkeys(value))


def _folder(value: str) -> str:
    # Commands are called from anywhere, and all of them must find the same folder.
    if "\0" in value or (value and value[0] not in "/~"):
        raise ValueError(f"expected a path that begins with / or ~, not {_shown(value)}")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"no home folder for {_shown(value)}") from None
    return value


def _conflict(value: str) -> str:
    if value in CONFLICTS:
        return value
    raise ValueError(f"expected one of {', '.join(CONFLICTS)}, not {value!r}")


def _log_level(value: str) -> str:
    if value in LOG_LEVELS:
        return value
    raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}, not {value!r}")


_SIZES = frozenset(f"files.{key}" for key in ("largest", "quota", "total", "keep_free"))

_CHECKS: dict[str, Callable[[Any], Any]] = {
    "node.name": _name,
    "server.host": _hosts,
    "server.port": _port,
    "server.public": _public,
    "nat.method": _method,
    "nat.gateway": _gateway,
    "nat.interface": _interface,
    "nat.external_port": _external_port,
    "nat.lease": _lease,
    "nat.stun": _stun,
    "client.peer": _name,
    "client.endpoint": _endpoint,
    "client.timeout": _not_negative,
    "files.folder": _folder,
    "files.conflict": _conflict,
    "files.partial_days": _not_negative,
    "limits.max_message": _max_message,
    "log.level": _log_level,
}


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"a value of {len(shown)} characters"
