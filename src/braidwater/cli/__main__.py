"""``python -m braidwater.cli``."""

from braidwater.cli import main

main()
