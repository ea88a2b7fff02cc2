"""`python -m pipeline` is `augnet`."""

from pipeline.main import main

raise SystemExit(main())
