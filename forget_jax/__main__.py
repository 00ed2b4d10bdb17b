"""`python -m forget_jax` is `forget-jax`."""

import sys

from forget_jax.cli import main

sys.exit(main())
