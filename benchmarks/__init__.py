"""Benchmarks: each a script, `benchmarks/NAME.py [--quick] [--json PATH]`, and a `run` for `bench`.

`finetune` and `score` put forget_jax beside torch: `world` makes one model and one set of rows,
`side` starts each system in a process of its own of which one computes at a time, `ours` and `peer`
are what runs there, and `table` shows what was measured.
"""
