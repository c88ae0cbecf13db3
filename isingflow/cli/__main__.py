"""`python -m isingflow.cli`: the command line without its installed script."""

from isingflow.cli import main

main()
