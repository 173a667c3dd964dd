"""What people hold: Python's functions, and the manners that all commands share.

Like the command modules, and unlike the libraries below them, this may use ingest and analysis.
"""
