"""Everything that a run must leave as it found it, looked at before and after."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.model import HookedGptOss


@dataclass
class AsFound:
    """A model and the process around it, as they were.

    Args:
        model: whose hooks, lock, weights and flags are looked at.
        tokens: what it is run on to see that it gives the same logits bit for bit.
    """

    model: HookedGptOss
    tokens: Tensor

    def __post_init__(self) -> None:
        self._weights = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        self._facts = self._now()
        self._logits = self._run()

    def check(self, what: str) -> None:
        """Fail, saying what is different."""
        now = self._now()
        changed = {name: (self._facts[name], now[name]) for name in now if now[name] != self._facts[name]}
        assert not changed, f"{what}: {changed}"
        for name, weight in self.model.state_dict().items():
            assert torch.equal(weight, self._weights[name]), f"{what}: {name} was changed"
        assert torch.equal(self._run(), self._logits), f"{what}: other logits"

    def _run(self) -> Tensor:
        with torch.no_grad():
            return self.model(self.tokens)

    def _now(self) -> dict[str, Any]:
        model = self.model
        left = [point.name for point in model.hook_points() if _hooks(point)]
        return {
            "hooks": left,
            "contexts": [point.name for point in model.hook_points() if point.ctx],
            "context level": model.context_level,
            "lock free": free(model._lock),
            "position": (model.positions, model.first_column),
            "training": [name for name, module in model.named_modules() if module.training],
            "requires_grad": [name for name, weight in model.named_parameters() if not weight.requires_grad],
            "gradients": [name for name, weight in model.named_parameters() if weight.grad is not None],
            "gradient mode": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "dtype": torch.get_default_dtype(),
            "threads": torch.get_num_threads(),
            "denormal": float(torch.tensor(1e-40) * 1),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            # Not Python's own generator: the checks of types at run time draw from it.
            "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index, union-attr]  # noqa: NPY002
            "torch": torch.get_rng_state().numpy().tobytes(),
            "handler": signal.getsignal(signal.SIGINT),
        }


def _hooks(point: Any) -> bool:
    return bool(
        point.fwd_hooks or point.bwd_hooks or point._forward_hooks or point._backward_hooks or point._forward_pre_hooks
    )


def free(lock: Any) -> bool:
    """Whether another thread gets a lock at once."""
    got: list[bool] = []

    def take() -> None:
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got[0]
