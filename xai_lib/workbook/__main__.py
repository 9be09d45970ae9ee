"""Entry point of `python -m xai_lib.workbook`: run the notebooks."""

import sys

from .command_line import main

sys.exit(main())
