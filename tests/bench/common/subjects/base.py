"""What the subjects that run on torch have in common.

A method named after a work takes the tokens and returns a call without arguments: that call is what is timed.
What it returns is the work's answer, by which the subjects are compared, or a float: seconds it counted itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEW_TOKENS = 24  # generated for one figure of decoding speed


class TorchSubject:
    """A torch model that takes tokens [batch, pos]; its subclasses say how."""

    model: nn.Module
    embedding: nn.Module

    def about(self) -> dict[str, Any]:
        """Facts of the subject for the record."""
        return {"threads": torch.get_num_threads()}

    def logits(self, tokens: Tensor) -> Tensor:
        """[batch, pos, d_vocab] of every position."""
        raise NotImplementedError

    def generate(self, tokens: Tensor, count: int) -> Any:
        """Continue greedily by exactly ``count`` tokens, with a key-value cache."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ works
    def forward(self, tokens: list[int]) -> Callable[[], Tensor]:
        """Logits of every position."""
        row = torch.tensor([tokens])

        @torch.no_grad()
        def run() -> Tensor:
            return self.logits(row)

        return run

    def answer_forward(self, tokens: list[int]) -> Callable[[], Any]:
        """The same as numbers to compare."""
        run = self.forward(tokens)
        return lambda: run().float().numpy()

    def first_token(self, tokens: list[int]) -> Callable[[], Any]:
        """Read the prompt and choose the token that follows."""
        row = torch.tensor([tokens])
        return lambda: self.generate(row, 1)

    def decode(self, tokens: list[int]) -> Callable[[], float]:
        """Seconds a token: the longer of two generations less the shorter one."""
        row = torch.tensor([tokens])

        def run() -> float:
            marks = [time.perf_counter()]
            for count in (1, 1 + NEW_TOKENS):
                self.generate(row, count)
                marks.append(time.perf_counter())
            return max((marks[2] - marks[1]) - (marks[1] - marks[0]), 1e-9) / NEW_TOKENS

        return run

    def backward(self, tokens: list[int]) -> Callable[[], Tensor]:
        """Forward, and the gradient of the mean next-token loss in the embedded tokens (weights get none)."""
        row = torch.tensor([tokens])

        def run() -> Tensor:
            found: list[Tensor] = []

            def start_here(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
                found.append(output.detach().requires_grad_())
                return found[0]

            handle = self.embedding.register_forward_hook(start_here)
            try:
                logits = self.logits(row)
            finally:
                handle.remove()
            F.cross_entropy(logits[0, :-1].float(), row[0, 1:]).backward()
            gradient = found[0].grad
            assert gradient is not None
            return gradient

        return run

    def answer_backward(self, tokens: list[int]) -> Callable[[], Any]:
        """The same as numbers to compare."""
        run = self.backward(tokens)
        return lambda: run().float().numpy()

    # ------------------------------------------------------------------------------------------------ questions
    def kept(self, work: str, tokens: list[int]) -> dict[str, Any]:
        """How many tensors a work keeps, and their bytes; one tensor under several names counts once."""
        _, cache = getattr(self, work)(tokens)()
        found = {(value.data_ptr(), tuple(value.shape)): value.nbytes for value in cache.values()}
        return {"tensors": len(found), "bytes": sum(found.values())}


def frozen(model: nn.Module) -> nn.Module:
    """In eval mode, and no weight asks for a gradient."""
    return model.eval().requires_grad_(False)


def difference(answers: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """The metric of the patching grids: the last logit of one token less that of another."""
    first, second = answers

    def metric(logits: Tensor) -> Tensor:
        return logits[0, -1, first].float() - logits[0, -1, second].float()

    return metric
