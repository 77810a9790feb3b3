"""``python -m recbole_xfer``."""

from recbole_xfer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
