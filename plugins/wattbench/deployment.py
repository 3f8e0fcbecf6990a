"""``python -m wattbench.deployment``: see :mod:`wattbench.airflow.deployment`."""

import sys

from wattbench.airflow.deployment import main

if __name__ == "__main__":
    sys.exit(main())
