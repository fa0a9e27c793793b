"""Reads what `hrm trace` wrote, with numpy alone, and prints how far the state moves in each segment.

    python docs/read_trace.py trace/
"""

import json
import sys
from pathlib import Path

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}


def read(folder):
    """The index, and the arrays by name. They stay on the disk until a part of them is used."""
    folder = Path(folder)
    index = json.loads((folder / "index.json").read_text())
    path = folder / index["file"]
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    arrays = {}
    for name, info in header.items():
        if name != "__metadata__":
            begin = 8 + length + info["data_offsets"][0]
            arrays[name] = np.memmap(path, TYPES[info["dtype"]], "r", begin, tuple(info["shape"]))
    return index, arrays


def as_float(array, index, name):
    """Part of an array as float32; numpy has no bfloat16, whose bits are the upper half of a float32's."""
    if index["arrays"][name]["dtype"] == "BF16":
        return (np.asarray(array).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, np.float32)


def main():
    index, arrays = read(sys.argv[1] if len(sys.argv) > 1 else "trace")
    print(f"{index['checkpoint']}: {len(index['rows'])} puzzles of {index['data']}")
    for n, row in enumerate(index["rows"]):
        # After every H cycle; the last of each segment.
        z = as_float(arrays["z_H"][n], index, "z_H")[index["h_cycles"] - 1 :: index["h_cycles"]]
        z = z.reshape(len(z), -1)
        moves = np.linalg.norm(np.diff(z, axis=0), axis=1) / np.linalg.norm(z[:-1], axis=1)
        answer = as_float(arrays["logits"][n, -1], index, "logits").argmax(-1)
        right = int((answer == arrays["labels"][n]).sum())
        print(f"puzzle {row}: {right} of {answer.size} cells right; |dz|/|z|", " ".join(f"{m:.3f}" for m in moves))


if __name__ == "__main__":
    main()
