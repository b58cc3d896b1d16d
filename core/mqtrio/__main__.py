"""`python -m mqtrio`."""

from mqtrio.cli import main

raise SystemExit(main())
