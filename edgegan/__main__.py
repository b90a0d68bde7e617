"""`python -m edgegan`, the same as the command `edgegan`."""

from edgegan.cli import main

main()
