"""`python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import sys

from benchmarks.harness import main

if __name__ == "__main__":
    sys.exit(main("benchmarks", sys.argv[1:]))
