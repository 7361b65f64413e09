"""`python -m edgestill` is the console script."""

from __future__ import annotations

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # python -m puts the working folder first, which may be that of a downloaded model

from .cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
