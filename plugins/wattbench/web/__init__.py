"""wattbench's pages in Airflow's UI: last night's answers, runs, experiments, trends, hosts.

`state` reads Airflow's database, `stored` what the store has, in the forms of `documents`; `rows` makes of
both what a person reads, `pages` gathers it per page, `render` makes HTML of it, `app` holds the routes and
who may see them.
"""

#: Path of the pages below Airflow's own.
PREFIX = "/wattbench"
