"""llama.cpp through its C interface, from the interpreter that has llama-cpp-python; no torch here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np

NEW_TOKENS = 24  # as in subjects/base.py


class Subject:
    """Its defaults (memory-mapped file, experts repacked for the processor at load, batches of 512, float16 cache)."""

    def __init__(self, path: str, n_ctx: int = 2048) -> None:
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise OSError(f"llama.cpp refused {path}: its reason is on stderr")
        self.d_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch = n_ctx, n_ctx
        settings.n_threads = settings.n_threads_batch = int(os.environ["OMP_NUM_THREADS"])
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        self.batch = llama_cpp.llama_batch_init(n_ctx, 0, 1)

    def about(self) -> dict[str, Any]:
        """Its build."""
        return {"version": llama_cpp.__version__, "build": llama_cpp.llama_print_system_info().decode().strip()}

    def _decode(self, tokens: list[int], first: int, every_logit: bool) -> np.ndarray:
        """Run tokens from a position on; logits [pos, d_vocab] of all of them or of the last."""
        batch, last = self.batch, len(tokens) - 1
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, first + i, 1, 0
            batch.logits[i] = every_logit or i == last
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        rows = len(tokens) if every_logit else 1
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape=(rows, self.d_vocab))

    def _start(self, tokens: list[int], every_logit: bool) -> np.ndarray:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        return self._decode(tokens, 0, every_logit)

    def _generate(self, tokens: list[int], count: int) -> None:
        logits = self._start(tokens, every_logit=False)
        for made in range(1, count):
            logits = self._decode([int(logits[-1].argmax())], len(tokens) + made - 1, every_logit=False)
        int(logits[-1].argmax())

    def forward(self, tokens: list[int]) -> Callable[[], np.ndarray]:
        """Logits of every position."""
        return lambda: self._start(tokens, every_logit=True)

    def answer_forward(self, tokens: list[int]) -> Callable[[], np.ndarray]:
        """The same as numbers to compare."""
        return lambda: self._start(tokens, every_logit=True)[None].copy()

    def first_token(self, tokens: list[int]) -> Callable[[], None]:
        """Read the prompt and choose the token that follows."""
        return lambda: self._generate(tokens, 1)

    def decode(self, tokens: list[int]) -> Callable[[], float]:
        """Seconds a token: the longer of two generations less the shorter one."""

        def run() -> float:
            marks = [time.perf_counter()]
            for count in (1, 1 + NEW_TOKENS):
                self._generate(tokens, count)
                marks.append(time.perf_counter())
            return max((marks[2] - marks[1]) - (marks[1] - marks[0]), 1e-9) / NEW_TOKENS

        return run
