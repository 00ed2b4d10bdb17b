"""The door for notebooks, beside the command line: labelled arrays in and out, no run's folder.

Every function calls what the commands call; `forget_jax` gives out their names.
"""
