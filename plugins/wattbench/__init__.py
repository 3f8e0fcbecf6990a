"""Controller of wattbench: config, plans, worker hosts, images, store, Airflow tasks and pages."""
