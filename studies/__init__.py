"""Studies as files: `axes study NAME` runs the one that is called so."""
