"""Load a model from a fixed path, say how good it is, and load it again when the path moves.

`mregfs demo` copies this file into its throw-away directory and runs it there. What it knows of
mregfs is one path, and one file to wait on.
"""

import argparse
import json
import os
from pathlib import Path

import numpy
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load_and_report(alias: Path) -> str:
    """Load the version that the alias points to now, print its accuracy, and return its path."""
    version = os.path.realpath(alias)  # one version from here on, wherever the alias moves
    config = json.loads(Path(version, "config.json").read_text())
    images, labels = load_digits(return_X_y=True)
    _, values, _, answers = train_test_split(images / 16, labels, random_state=0)
    with safe_open(Path(version, "model.safetensors"), framework="numpy") as weights:
        for number in range(config["layers"]):
            values = values @ weights.get_tensor(f"layer{number}.weight")
            values += weights.get_tensor(f"layer{number}.bias")
            if number + 1 < config["layers"]:
                values = numpy.maximum(values, 0)
    right = float(numpy.mean(values.argmax(axis=1) == answers))
    print(f"serving {'/'.join(version.split('/')[-2:])}: accuracy {right:.3f}", flush=True)
    return version


def main() -> None:
    """Report once, or go on reporting whenever the alias has moved."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--follow", type=Path, metavar="EVENTS")
    arguments = parser.parse_args()

    if arguments.follow is None:
        load_and_report(arguments.model)
        return
    with open(arguments.follow) as events:  # opened first: no change can slip in between
        version = load_and_report(arguments.model)
        for _ in events:  # blocks until something in the registry has changed
            if os.path.realpath(arguments.model) != version:
                version = load_and_report(arguments.model)


if __name__ == "__main__":
    main()
