"""Script that `quantization.py` runs: FOLDER/tower.xml and pictures.npy to FOLDER/int8.xml."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_ATTENTION = frozenset({"ScaledDotProductAttention", "Softmax"})


def main(folder: Path) -> None:
    """Take the ranges of all activations from the pictures, and store weights in 8 bits."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # no network requests
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters as advanced

    model = openvino.Core().read_model(folder / "tower.xml", config={"ENABLE_MMAP": False})
    nodes = [(node.get_type_name(), node.get_friendly_name()) for node in model.get_ordered_ops()]
    is_transformer = any(kind in _ATTENTION for kind, _ in nodes)
    # The final projection stays float32: it costs nothing, and every coordinate depends on it.
    last = [name for kind, name in nodes if kind == "MatMul"][-1:]
    pictures = np.load(folder / "pictures.npy")
    quantized = nncf.quantize(
        model,
        nncf.Dataset([picture[None] for picture in pictures]),
        subset_size=len(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        ignored_scope=nncf.IgnoredScope(names=last, types=["ReduceL2", "Divide"], validate=False),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            # Weights of 7 bits: with 8, sums overflow on processors without VNNI, which would
            # compute other vectors.
            overflow_fix=advanced.OverflowFix.ENABLE,
        ),
    )
    openvino.save_model(quantized, folder / "int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
