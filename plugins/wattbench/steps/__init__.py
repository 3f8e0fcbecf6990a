"""The steps of a run, without Airflow: prepare, check, pull, warm-up, trial, analyze, verdict."""
