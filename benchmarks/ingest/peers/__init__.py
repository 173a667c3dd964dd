"""One script per peer, each run by an interpreter that has the peer and not this package."""
