"""What ingest costs: over the bare model, against other libraries, in memory and at the start.

The prompts are the built-in `demo_alignment`; with `BENCH_PROMPTS=alpaca.parquet` those of that
file.
"""
