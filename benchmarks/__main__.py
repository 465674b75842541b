"""`make bench`: runs all benchmarks that need no data; each prints the machine and the versions."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("extraction", "detection", "memory", "scaling")


def main() -> None:
    """Runs every benchmark; exit status 1 if one missed its target."""
    failed = []
    for name in BENCHMARKS:
        print(f"\n## {name}\n", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"target missed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
