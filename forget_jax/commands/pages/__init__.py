"""What a page shows of each command's summary: chapters for `forget_jax.report` to write."""
