"""The configuration: a TOML file, the environment and a command's flags -> one frozen value.

A flag stands above the environment (`SECURELINK_TABLE_KEY`), that above the file, and that above
the default. Every value is checked wherever it comes from, and every error names the place: the
file and line, the variable, or the flag. A key that nobody reads is an error, because it is most
likely a mistyped one.
"""

from securelink.config.loading import LoadedConfig, load
from securelink.config.model import (
    CONFLICTS,
    DEFAULT_PORT,
    LOG_LEVELS,
    ClientConfig,
    Config,
    ConfiguredPeer,
    ConfiguredPeerFiles,
    FilesConfig,
    LogConfig,
    NatConfig,
    NodeConfig,
    PeerFiles,
    ServerConfig,
)

__all__ = [
    "CONFLICTS",
    "DEFAULT_PORT",
    "LOG_LEVELS",
    "ClientConfig",
    "Config",
    "ConfiguredPeer",
    "ConfiguredPeerFiles",
    "FilesConfig",
    "LoadedConfig",
    "LogConfig",
    "NatConfig",
    "NodeConfig",
    "PeerFiles",
    "ServerConfig",
    "load",
]
