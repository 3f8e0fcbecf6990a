"""The sections of a report, one module per section: the registry imports every module of this package.

A new section is one file here, or one module of another distribution that its entry point of the group
``wattbench.report_sections`` names.
"""
