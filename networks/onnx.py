"""ONNX: the graph of a detector, and ONNX Runtime as its engine on a CPU (--engine onnxruntime)."""

import io
import logging

import torch
from torch import nn

from common import UserError, require_package

EXAMPLE = (2, 3, 64, 64)  # of the traced images; batch, height and width stay free


def graph(detector):
    """The ONNX model of a detector in evaluation mode, bytes: uint8 images (B, 3, H, W) -> logits (B,).

    UserError for a detector that ONNX cannot express.
    """
    for name in ("onnx", "onnxscript"):
        require_package(name, "the graph of a detector")
    patches = detector.data_config.patches
    shape = EXAMPLE if patches is None else (*EXAMPLE[:2], patches.size, patches.size)
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    if patches is not None:
        free = {0: free[0]}
    images = torch.zeros(shape, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports on versions of operators
    try:
        program = torch.onnx.export(
            detector, (images,), input_names=["images"], output_names=["logits"],
            dynamic_shapes={"images": free}, dynamo=True, verbose=False,
        )  # fmt: skip
    except Exception as error:  # the exporter raises many types; what matters to the user is the detector
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"detector {detector.arch!r} has no ONNX graph: {reason}") from error
    file = io.BytesIO()
    program.save(file)
    return file.getvalue()


class OnnxNetwork(nn.Module):
    """A detector that ONNX Runtime computes, with as many threads as torch has."""

    def __init__(self, detector):
        super().__init__()
        runtime = require_package("onnxruntime", "--engine onnxruntime")
        self.data_config, self.arch = detector.data_config, detector.arch
        self.config, self.companions = detector.config, detector.companions
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = runtime.InferenceSession(graph(detector), options, ["CPUExecutionProvider"])

    def forward(self, images):
        """uint8 images (B, 3, H, W) -> logits (B,), float32, on the images' device."""
        (logits,) = self.session.run(None, {"images": images.cpu().numpy()})
        return torch.from_numpy(logits).to(images.device)
