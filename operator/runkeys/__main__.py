"""`python -m runkeys`: the command line."""

from runkeys.cli import main

main()
