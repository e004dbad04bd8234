# SPDX-License-Identifier: MIT
import sys
import zipfile

import numpy as np

from write import layer

with np.load(sys.argv[1]) as archive:
    assert archive.files == list(layer), archive.files
    for name, value in layer.items():
        assert archive[name].dtype == value.dtype and archive[name].shape == value.shape, name
        assert archive[name].tobytes() == value.tobytes(), name
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
print("as it should be")
