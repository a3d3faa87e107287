"""`python -m poolnb` is the command `poolnb`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
