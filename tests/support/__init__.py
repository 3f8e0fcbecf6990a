"""What tests share: stand-in services, stored and simulated runs. tests/README.md has the index."""
