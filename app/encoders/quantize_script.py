"""Run as a script, by `quantised.py` alone: FOLDER/tower.xml and pictures.npy to int8.xml there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Take the ranges of all numbers from the pictures, and store weights in 8 bits."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would call home
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters as advanced

    model = openvino.Core().read_model(folder / "tower.xml", config={"ENABLE_MMAP": False})
    kinds = [(node.get_type_name(), node.get_friendly_name()) for node in model.get_ordered_ops()]
    attends = any(kind in _ATTENTION for kind, _ in kinds)
    # The projection at the end: it costs nothing, and every coordinate of the vector rests on it.
    last = [name for kind, name in kinds if kind == "MatMul"][-1:]
    pictures = np.load(folder / "pictures.npy")
    made = nncf.quantize(
        model,
        nncf.Dataset([picture[None] for picture in pictures]),
        subset_size=len(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
        ignored_scope=nncf.IgnoredScope(names=last, types=["ReduceL2", "Divide"], validate=False),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            # Weights of 7 bits: 8 overflow on processors without VNNI, which would see otherwise.
            overflow_fix=advanced.OverflowFix.ENABLE,
        ),
    )
    openvino.save_model(made, folder / "int8.xml", compress_to_fp16=False)


_ATTENTION = frozenset({"ScaledDotProductAttention", "Softmax"})

if __name__ == "__main__":
    main(Path(sys.argv[1]))
