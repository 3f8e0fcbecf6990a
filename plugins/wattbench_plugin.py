"""What Airflow's plugin scan imports: wattbench's pages in Airflow's UI."""

from wattbench.web.plugin import WattbenchPlugin

__all__ = ["WattbenchPlugin"]
