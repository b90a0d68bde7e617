"""`python -m edgegan.trainer`, which torchrun needs: the same as `edgegan-train`."""

from edgegan.trainer.cli import main

main()
