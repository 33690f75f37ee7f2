"""`python -m raymill`."""

import sys

from raymill.cli import main

sys.exit(main())
