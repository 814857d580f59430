"""``python -m edgefusion`` is the program ``edgefusion``."""

import sys

from edgefusion.cli import main

sys.exit(main())
