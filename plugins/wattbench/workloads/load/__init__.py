"""The load generator: sends requests to a server on its own schedule and records every one of them.

Runs beside the server on the worker host, which needs Python 3.9 and nothing else: this package is shipped
with h11 (HTTP/1.1 without I/O) as one zip application, by its content. Imports nothing else of wattbench.
"""
