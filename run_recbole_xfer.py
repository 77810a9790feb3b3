from recbole_xfer.cli import main

raise SystemExit(main())
