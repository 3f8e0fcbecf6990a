"""The built-in workload: the same program in every image; it reports on stdout what it did and when.

Standard library and numpy, beside the one framework that a trial asks for; Python 3.9 or later.
"""
