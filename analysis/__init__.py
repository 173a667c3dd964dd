"""Queried matrices in, numbers and axes out; no file access of its own."""
