"""``python -m recbole_xfer``: the command line without an installed script."""

from recbole_xfer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
