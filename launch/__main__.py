"""`python -m forget_jax.launch [SCRIPT ARGUMENTS...]`: where the scripts are, or one of them.

SCRIPT is slurm, gke, tpu_pod or local. Without it the folder is printed, for copies of the scripts
and for the Dockerfile.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = ("local", "slurm", "tpu_pod", "gke")


def main(argv: list[str]) -> int:
    """Prints the folder, or becomes the script; the exit status."""
    if not argv:
        print(HERE)
        return 0
    name = argv[0].removesuffix(".sh")
    if name in SCRIPTS:
        os.execvp("bash", ["bash", str(HERE / f"{name}.sh"), *argv[1:]])
    print(f"launch: there is no {argv[0]}; there is {', '.join(SCRIPTS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
