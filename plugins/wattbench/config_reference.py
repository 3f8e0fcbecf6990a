"""``python -m wattbench.config_reference``: see :mod:`wattbench.config.reference`."""

from wattbench.config.reference import main

if __name__ == "__main__":
    main()
