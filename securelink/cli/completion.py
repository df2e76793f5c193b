"""What the shell offers to complete; whatever goes wrong, it offers nothing, and says nothing."""

from __future__ import annotations


def peer_names(incomplete: str) -> list[str]:
    """Return the names of this node's peers that begin with *incomplete*."""
    import sqlite3

    from securelink import directory
    from securelink.config import load
    from securelink.errors import SecurelinkError
    from securelink.home import Home
    from securelink.store.database import Database

    try:
        home = Home.find()
        configured = load(home.config_file).config.peers
        names = frozenset(configured)
        # Not `Database.open`, which would make what is not there, or bring it up to date.
        if home.store_file.exists():
            database = Database.open_reader(home.store_file)
            try:
                names = directory.read(database.connection, configured).names
            finally:
                database.close()
    except (SecurelinkError, sqlite3.Error, OSError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))
