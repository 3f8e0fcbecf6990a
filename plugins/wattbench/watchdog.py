"""`python -m wattbench.watchdog NAME`: keeps one of Airflow's processes at work."""

import sys

from wattbench.airflow.watchdog import main

if __name__ == "__main__":
    sys.exit(main())
