"""A node's home: where its configuration, its key, its store, its locks and its files lie.

With `SECURELINK_HOME` everything is in that one folder. Without it the platform's own folders are
used: one for the configuration, the user's downloads for received files, and one for the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from securelink.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = "SECURELINK_HOME"
_SET_IT = f"set {_VARIABLE} to a folder of your own"


class Home(msgspec.Struct, frozen=True):
    """The folders of one node, all absolute."""

    config_folder: Path
    data_folder: Path
    downloads: Path | None = None
    """The user's own; None: what is received stays within the data folder."""

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Home:
        """Return the home that *environ* names, or else the user's own.

        Raises:
            ConfigError: if this is not Linux or macOS, or no home folder is known.
        """
        if platform == "win32":
            raise ConfigError("securelink runs on Linux and macOS only", hint="on Windows, use WSL")
        if named := environ.get(_VARIABLE):
            try:
                # No shell expands the tilde where a service manager sets the variable.
                folder = Path(named).expanduser().absolute()
            except RuntimeError:
                raise ConfigError(
                    f"{_VARIABLE}: no home folder for {named}", hint=_SET_IT
                ) from None
            return cls(folder, folder)
        from platformdirs import user_config_path, user_data_path, user_downloads_path

        folders = (
            user_config_path("securelink"),
            user_data_path("securelink"),
            user_downloads_path(),
        )
        if not all(folder.is_absolute() for folder in folders):
            raise ConfigError("this user's home folder is not known", hint=_SET_IT)
        return cls(*folders)

    @property
    def config_file(self) -> Path:
        """The configuration, which need not exist."""
        return self.config_folder / "config.toml"

    @property
    def key_file(self) -> Path:
        """The identity's private key."""
        return self.data_folder / "identity.key"

    @property
    def store_file(self) -> Path:
        """The SQLite store."""
        return self.data_folder / "securelink.db"

    @property
    def locks(self) -> Path:
        """The folder of the files on which this node's processes hold their locks."""
        return self.data_folder / "locks"

    def owner_lock(self, owner: str) -> Path:
        """The file that a process of this node, called *owner* in the store, holds a lock on."""
        return self.locks / f"{owner}.owner"

    @property
    def serve_lock(self) -> Path:
        """The lock that a running `serve` holds."""
        return self.locks / "serve.lock"

    def files_folder(self, configured: str = "") -> Path:
        """Return where received files go, each peer's in a folder of its own; it need not exist.

        Args:
            configured: `[files] folder`; empty where nothing is configured.

        Raises:
            ConfigError: if it begins with the home of somebody who has none.
        """
        if configured:
            try:
                return Path(configured).expanduser().absolute()
            except RuntimeError:
                raise ConfigError(
                    f"[files] folder: no home folder for {configured}",
                    hint="give a path that begins with /",
                ) from None
        if self.downloads is None:
            return self.data_folder / "files"
        return self.downloads / "securelink"

    def create(self) -> None:
        """Make the folders that are missing, open to this user alone.

        Folders that exist keep their mode: they may have been made for more than securelink.

        Raises:
            ConfigError: if one can't be made.
        """
        for folder in (self.config_folder, self.data_folder, self.locks):
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
            except FileExistsError as error:
                raise ConfigError(f"{error.filename} is not a folder", hint=_SET_IT) from None
            except OSError as error:
                reason = os.strerror(error.errno or 0).lower()
                raise ConfigError(
                    f"can't make the folder {folder}: {reason}", hint=_SET_IT
                ) from None
