"""`python -m edgestill` is the console script."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # python -m puts the working folder first, which may be that of a downloaded model

try:
    from .cli.main import main
except ModuleNotFoundError as error:
    if error.name != "click":
        raise
    from .models.errors import MissingExtra

    missing = MissingExtra("click", "cli")
    sys.exit(f"error: {missing.message}\nhint: {missing.hint}")

if __name__ == "__main__":
    main()
