"""Train a model that reads handwritten digits, and save it as any training code would.

`mregfs demo` copies this file into its throw-away directory and runs it there. Nothing in it knows
mregfs: it writes two files into a directory.
"""

import argparse
import json
import warnings
from pathlib import Path

from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def main() -> None:
    """Train with the hidden layer asked for, and save weights and configuration."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    arguments = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    seen, _, answers, _ = train_test_split(images / 16, labels, random_state=0)
    model = MLPClassifier((arguments.hidden,), max_iter=15, learning_rate_init=0.01, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 15 rounds are enough for a demo
        model.fit(seen, answers)

    tensors = {}
    for number, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        tensors[f"layer{number}.weight"] = weight.astype("float32")
        tensors[f"layer{number}.bias"] = bias.astype("float32")
    arguments.save.mkdir(parents=True)
    save_file(tensors, arguments.save / "model.safetensors")
    config = {"layers": len(model.coefs_), "hidden": arguments.hidden}
    (arguments.save / "config.json").write_text(json.dumps(config))
    print(f"trained {sum(tensor.size for tensor in tensors.values())} weights")


if __name__ == "__main__":
    main()
