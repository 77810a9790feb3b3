"""``recbole-xfer`` for a clone that is not installed: ``python run_recbole_xfer.py --model=ANT --dataset=Pantry``."""

from recbole_xfer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
