"""``python -m dflow.cli`` is the ``dflow`` command."""

import sys

from dflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
