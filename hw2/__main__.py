"""`python -m hw2` is the command `hw2`."""

from hw2.cli import main

main()
