"""Models and reading of hosts.yaml and experiments/*.yaml."""
