"""securelink: messages, encrypted, straight from one machine to another."""

__version__ = "0.1.0"
