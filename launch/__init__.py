"""The scripts that start one run on many machines; `python -m forget_jax.launch` finds them."""
