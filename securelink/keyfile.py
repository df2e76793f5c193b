"""The node's private key on disk.

The file is text, so that it survives being copied by hand: lines that begin with `#` are
comments, and the one other line is `slkey1` and the lower-case base32 of the private key (32
bytes) and a checksum (the first 4 bytes of its SHA-256). The checksum is there because a private
key has no wrong values: a damaged one would silently be another identity.

How it is made, so that of processes that start at the same time all get the same key, and a crash
at any moment leaves either no key or a whole one:

1. Write the key into a new 0600 file beside it, and fsync that.
2. Link it to the name of the key file. If that name exists, somebody else won: load theirs.
3. Unlink the file of step 1, and fsync the folder.

Files of step 1 that a crash left are deleted once there is a key. A process that is between 1 and
2 then finds its file gone, and loads the winner's key like everybody else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
import stat
from typing import TYPE_CHECKING

from securelink import base32
from securelink.errors import IdentityError, UnsafeKeyFile
from securelink.identity import KEY_SIZE, Identity

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "slkey1"

_COMMENT = "# The private key of this securelink node. Never share it or use it on two machines.\n"
_CHECKSUM_SIZE = 4
_MAX_SIZE = 4096

_START_OVER = "restore it from a backup, or delete it for a new identity and pair again"


def load_or_create(path: Path) -> Identity:
    """Return the identity in the key file at *path*, which is made if it is missing.

    A folder that is made for it is 0700; an empty one is closed to others.

    Raises:
        UnsafeKeyFile: if other users have access to the file.
        IdentityError: if the file can't be read or made, or is damaged.
    """
    identity = load(path)
    if identity is None:
        _create(path)
        identity = load(path)
        if identity is None:
            raise IdentityError(f"the key file {path} vanished as soon as it was made")
    _delete_leftovers(path)
    return identity


def load(path: Path) -> Identity | None:
    """Return the identity in the key file at *path*, or None if there is no such file.

    Raises:
        UnsafeKeyFile: if other users have access to the file.
        IdentityError: if the file can't be read or is damaged.
    """
    try:
        # Non-blocking, or a pipe in the file's place would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError(
                f"{path} is not a file", hint="move it away; a key file is made in its place"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise UnsafeKeyFile(
                f"the key file {path} is open to other users of this machine",
                hint=f"chmod 600 {shlex.quote(str(path))}",
            )
        text = os.read(fd, _MAX_SIZE)
    except OSError as error:
        raise _failed("read", path, error) from error
    finally:
        os.close(fd)
    return Identity.from_private_bytes(_decode(text, path))


def _encode(private: bytes) -> bytes:
    checked = private + hashlib.sha256(private).digest()[:_CHECKSUM_SIZE]
    return f"{_COMMENT}{PREFIX}{base32.encode(checked)}\n".encode()


def _decode(text: bytes, path: Path) -> bytes:
    """Return the private key, 32 bytes, or raise IdentityError."""
    if not text.strip():
        raise IdentityError(f"the key file {path} is empty", hint=_START_OVER)
    damaged = IdentityError(f"the key file {path} is damaged", hint=_START_OVER)
    lines = [line.strip() for line in text.decode("ascii", "replace").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1 or not keys[0].startswith(PREFIX):
        raise damaged
    try:
        data = base32.decode(keys[0].removeprefix(PREFIX))
    except ValueError:
        raise damaged from None
    private, checksum = data[:KEY_SIZE], data[KEY_SIZE:]
    if hashlib.sha256(private).digest()[:_CHECKSUM_SIZE] != checksum:
        raise damaged
    return private


def _create(path: Path) -> None:
    """Make the key file with a new key, unless another process does it first."""
    temporary = path.with_name(f"{_leftover_start(path)}{secrets.token_hex(8)}.tmp")
    try:
        _make_private_folder(path.parent)
        try:
            _write_durably(temporary, _encode(Identity.generate().private_bytes()))
            # Either error means that another process has made the key file.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync_folder(path.parent)
    except OSError as error:
        raise _failed("make", path, error) from error


def _make_private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A folder that a person prepared is as good as ours while it is empty; one with other things
    # in it may be shared on purpose. Rights are only taken: a read-only folder stays one.
    status = folder.stat()
    if status.st_uid == os.geteuid() and not any(folder.iterdir()):
        folder.chmod(status.st_mode & 0o700)


def _write_durably(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _leftover_start(path: Path) -> str:
    return f".{path.name}."


def _delete_leftovers(path: Path) -> None:
    # What can't be deleted is harmless: private keys that nobody uses, readable by nobody else.
    with contextlib.suppress(OSError):
        for file in path.parent.glob(f"{_leftover_start(path)}*.tmp"):
            file.unlink(missing_ok=True)


def _failed(doing: str, path: Path, error: OSError) -> IdentityError:
    """Return what to tell the person when *doing* something with the key file failed."""
    folder, elsewhere = path.parent, "choose another folder with SECURELINK_HOME"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return IdentityError(f"{folder} is not a folder", hint=f"move it away, or {elsewhere}")
    message = f"cannot {doing} the key file {path}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return IdentityError(message, hint="free some space, and try again")
    if doing == "read":
        return IdentityError(message, hint=f"as its owner: chmod 600 {shlex.quote(str(path))}")
    if error.errno in (errno.EACCES, errno.EROFS):
        return IdentityError(message, hint=f"make {folder} writable, or {elsewhere}")
    return IdentityError(message, hint=f"{elsewhere}, on a file system with hard links")
