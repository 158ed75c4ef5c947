"""`python -m ffvit COMMAND`: a module for each command, named like it.

Each has `add_arguments(parser)` and `run(options)`. Only the command that is asked for is imported,
and what it needs of torch or ffcv only when it runs: `--help` takes no time.
"""
