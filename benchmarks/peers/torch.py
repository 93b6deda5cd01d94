"""PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peers import threads


def setup(gradients: bool = False) -> Any:
    """The package with its threads set, recording for gradients or not, nothing kept from compilations before."""
    import torch

    torch.set_num_threads(threads())
    torch.set_grad_enabled(gradients)
    torch._dynamo.reset()
    return torch


def function(
    function: Callable[..., Any], inputs: dict[str, Any], compile: bool = False, constants: Sequence[str] = ()
) -> Callable[[], Any]:
    """A function of the package and tensors; compiled, those in `constants` are frozen into it and may be packed."""
    torch = setup()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if not compile:
        arrays = list(tensors.values())
        return lambda: function(torch, *arrays)
    import torch._inductor.config as inductor

    inductor.freezing = bool(constants)
    held = {name: tensors.pop(name) for name in constants}
    fed = list(tensors)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in held.items():
                self.register_buffer(name, tensor)

        def forward(self, *arrays: Any) -> Any:
            return function(
                torch, **dict(zip(fed, arrays, strict=True)), **{name: getattr(self, name) for name in held}
            )

    call, arrays = torch.compile(Module().eval()), list(tensors.values())
    return lambda: call(*arrays)


def training(forward: Callable[..., Any], optimizer: Any, inputs: Sequence[Any], compile: bool) -> Callable[[], Any]:
    """A step: the loss that `forward` gives for the inputs, its gradients, the optimizer's update."""
    torch = setup(gradients=True)
    call = torch.compile(forward) if compile else forward

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = call(*inputs)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
