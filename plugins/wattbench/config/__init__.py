"""Models of hosts.yaml and experiments/*.yaml, and their reader."""
