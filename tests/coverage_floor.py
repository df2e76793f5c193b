"""Hold the measured coverage to its floors: every branch of layers 0 to 2, and most of the rest.

Run it after `coverage combine`, from the project's folder::

    python tests/coverage_floor.py
"""

from __future__ import annotations

import subprocess
import sys

from test_layers import LAYER, SPLIT

CORE_FLOOR = 100
WHOLE_FLOOR = 90


def report(floor: int, *options: str) -> bool:
    command = [sys.executable, "-m", "coverage", "report", f"--fail-under={floor}", *options]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    core = ",".join(
        pattern
        for name, layer in LAYER.items()
        if layer <= 2
        for path in (name.replace(".", "/"),)
        # A package that reaches over several layers counts module by module.
        for pattern in (f"securelink/{path}.py", f"securelink/{path}/__init__.py")
        + (() if name in SPLIT else (f"securelink/{path}/*",))
    )
    good = report(CORE_FLOOR, f"--include={core}")
    good = report(WHOLE_FLOOR) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
