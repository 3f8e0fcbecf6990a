"""Services on this machine, without root: Airflow, object store, registry, sshd; the embedded controller."""
