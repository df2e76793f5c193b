"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Have Ctrl-C reach what the tests start.

    Who runs them in the background has it ignored, and so would all children.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
