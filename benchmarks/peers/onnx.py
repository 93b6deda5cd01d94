"""ONNX Runtime and OpenVINO: the same ONNX model, inputs and outputs bound beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from peers import threads

OPSET = 21


def model(
    nodes: Sequence[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: dict[str, Any] | None = None
) -> bytes:
    """A serialized model.

    Args:
        nodes: `onnx.helper.make_node` results in order.
        inputs: arrays by name; their types and shapes count.
        outputs: NumPy dtype and shape by name.
        constants: arrays that stand in the model, by name.
    """
    from onnx import helper, numpy_helper

    def info(name: str, dtype: Any, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    held = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "benchmark",
        [info(name, array.dtype, array.shape) for name, array in inputs.items()],
        [info(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
        held,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return made.SerializeToString()


def ort(serialized: bytes, inputs: dict[str, Any]) -> Callable[[], Any]:
    """ONNX Runtime, all optimizations, one operator after the other on all threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    results = []
    for output in session.get_outputs():
        dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}[output.type]
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, dtype)
        binding.bind_ortvalue_output(output.name, value)
        results.append(value)

    def run(held: Any = held) -> Any:  # the inputs live as long as the call
        session.run_with_iobinding(binding)
        return results

    return run


def openvino(serialized: bytes, inputs: dict[str, Any]) -> Callable[[], Any]:
    """OpenVINO for latency, in float32 (it would take bfloat16 where the processor has it)."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(serialized), "CPU", settings)
    request = compiled.create_infer_request()
    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    count = len(compiled.outputs)

    def run(held: Any = (core, compiled, inputs)) -> Any:
        request.infer()
        return [request.get_output_tensor(k).data for k in range(count)]

    return run
