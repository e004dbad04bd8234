# SPDX-License-Identifier: MIT
import io

import numpy as np

layer = {
    "scale": np.array([1.5, -2, 0.25], "f4"),
    "bias": np.array([0, 1, -1], "f4"),
    "mean": np.array([0.5, 0, -3], "f4"),
    "variance": np.array([1, 4, 0.0625], "f4"),
    "batches": np.int64(7),
}


def named(prefix, kind):
    return {f"{prefix}.{name}": value if name == "batches" else value.astype(kind) for name, value in layer.items()}


class Unseekable(io.RawIOBase):
    def __init__(self, path):
        self.file = open(path, "wb")

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)

    def close(self):
        self.file.close()
        super().close()


if __name__ == "__main__":
    np.savez("savez.npz", **layer)
    np.savez_compressed("savez_compressed.npz", **layer)
    np.savez("two_layers.npz", **named("a", "f8"), **named("b", "f2"))
    with Unseekable("unseekable.npz") as stream:
        np.savez_compressed(stream, **layer)
