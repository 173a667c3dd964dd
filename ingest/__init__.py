"""Models in, rows out: run language models and write what they did to the warehouse."""
