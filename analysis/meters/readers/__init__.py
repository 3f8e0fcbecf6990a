"""The meters, one module per kind: the registry imports every module of this package.

A new meter is one file here, or one module of another distribution that its entry point of the group
``wattbench.meters`` names.
"""
