"""`python -m axes`: the same as the command `axes`."""

from axes.cli.main import main

main()
