"""`axes explore`: a page on this machine's own browser to look at a warehouse."""
