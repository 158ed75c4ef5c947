"""Measurements of ffvit against its peers; developers' code, no part of the package.

`make bench` runs them all; results are committed as JSON, tables and chart are made from it.
"""
