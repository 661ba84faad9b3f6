"""``python -m vitrail`` is ``vitrail``, for environments whose scripts are not on the path."""

import sys

from vitrail.cli.main import main

sys.exit(main())
