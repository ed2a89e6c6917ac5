"""`python -m prunekd`."""

from prunekd.cli import main

main()
