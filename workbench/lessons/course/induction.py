"""Lesson 5: induction. What its exercises must do, and what students get wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.activations import run
from workbench.experiments import path_patching
from workbench.interventions import AblateHead
from workbench.lessons.exercise import Case, Exercise, Mistake, close, equal
from workbench.lessons.models import nano
from workbench.lessons.outline import Outline
from workbench.model import HookedGptOss

Heads = Sequence[tuple[int, int]]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


# ------------------------------------------------------------------------------------------------------------- the rule


def _texts(rng: np.random.Generator) -> Iterator[Case]:
    once = rng.permutation(20)[:6].tolist()
    yield Case((once + once,), about="six tokens, told twice")
    yield Case(([5, 1, 5, 2, 5, 3, 9, 5],), about="a token that was followed by several")
    yield Case((rng.integers(0, 5, size=14).tolist(),), about="few tokens, often repeated")
    yield Case(([7],), about="a single token")


def _rule(tokens: list[int]) -> list[int]:
    last_follower: dict[int, int] = {}
    said = []
    for at, token in enumerate(tokens):
        # What followed a token is known only when the next one has come: at `at`, its earlier copies all have.
        if at:
            last_follower[tokens[at - 1]] = token
        said.append(last_follower.get(token, -1))
    return said


def _copies(tokens: list[int], at: int) -> list[int]:
    return [i for i in range(at) if tokens[i] == tokens[at]]


def _by_copies(pick: Callable[[list[int], int, list[int]], int]) -> Callable[[list[int]], list[int]]:
    return lambda tokens: [pick(tokens, at, _copies(tokens, at)) for at in range(len(tokens))]


INDUCTION_RULE = Exercise(
    name="induction_rule",
    task="What a pure induction rule predicts after each token",
    cases=_texts,
    truth=_rule,
    mistakes=(
        Mistake(
            "the first copy",
            _by_copies(lambda tokens, at, copies: tokens[copies[0] + 1] if copies else -1),
            "You take the **first** earlier copy. Where a token was followed by several, the rule takes the latest "
            "one.",
        ),
        Mistake(
            "the copy itself",
            _by_copies(lambda tokens, at, copies: tokens[copies[-1]] if copies else -1),
            "You give the copy itself. Asked is the token that came **after** it.",
        ),
        Mistake(
            "the token before",
            _by_copies(lambda tokens, at, copies: tokens[copies[-1] - 1] if copies and copies[-1] else -1),
            "You give the token **before** the copy. Induction continues the story: the one after it.",
        ),
        Mistake(
            "looks into the future",
            lambda tokens: [*tokens[1:], -1],
            "You count the token itself as its own earlier copy, and so read the token that comes next in the "
            "text. Only "
            "strictly earlier copies count.",
        ),
        Mistake(
            "0 for none",
            _by_copies(lambda tokens, at, copies: tokens[copies[-1] + 1] if copies else 0),
            "Where there is no earlier copy, give −1: 0 is a token.",
        ),
    ),
    hints=(
        "For each place, walk back from the token before it, until you meet the same token.",
        "`for back in range(at - 1, -1, -1): if tokens[back] == tokens[at]: …` and stop at the first that you meet.",
        "There, the prediction is `tokens[back + 1]`; −1 where the walk meets none.",
    ),
    compare=equal(),
)


# ---------------------------------------------------------------------------------------------- heads out, pattern gone


def _told_twice(rng: np.random.Generator) -> Iterator[Case]:
    model, length = nano(), int(rng.integers(18, 24))
    once = torch.from_numpy(rng.integers(20, model.config.d_vocab, size=(2, length)))
    tokens = torch.cat([once, once], 1)
    for heads in ([(0, 4)], [(0, 4), (0, 7)], []):
        about = f"heads {heads} silent" if heads else "no head silent"
        yield Case((model, tokens, length, 1, heads), about=about)


@torch.no_grad()
def _pattern_without(model: HookedGptOss, tokens: Tensor, layer: int, heads: Heads) -> Tensor:
    kept: dict[str, Tensor] = {}

    def silent(head: int) -> Callable[[Tensor, Any], Tensor]:
        def edit(z: Tensor, hook: Any) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0
            return z

        return edit

    def keep(pattern: Tensor, hook: Any) -> None:
        kept["pattern"] = pattern.clone()

    edits: list[tuple[str, Callable]] = [(f"blocks.{at}.attn.hook_z", silent(head)) for at, head in heads]
    model.run_with_hooks(tokens, fwd_hooks=[*edits, (f"blocks.{layer}.attn.hook_pattern", keep)])
    return kept["pattern"]


def _score_by_loops(model: HookedGptOss, tokens: Tensor, length: int, layer: int, heads: Heads) -> np.ndarray:
    a = _pattern_without(model, tokens, layer, heads).double().numpy()
    each = [a[row, :, t, t - length + 1] for row in range(len(a)) for t in range(length, 2 * length)]
    return np.mean(each, axis=0)


def _score(model: HookedGptOss, tokens: Tensor, layer: int, heads: Heads, back: int, first: int) -> Tensor:
    pattern = run(model, tokens, [AblateHead(*at) for at in heads])[f"blocks.{layer}.attn.hook_pattern"]
    return pattern.diagonal(-back, dim1=-2, dim2=-1)[..., first - back :].mean((0, 2))


SCORE_WITHOUT = Exercise(
    name="score_without",
    task="The induction scores of a layer's heads, with earlier heads silent",
    cases=_told_twice,
    truth=_score_by_loops,
    mistakes=(
        Mistake(
            "nothing silenced",
            lambda model, tokens, length, layer, heads: _score(model, tokens, layer, [], length - 1, length),
            "These are the scores of the **unedited** model. Hand `wb.run` the list of ablations.",
        ),
        Mistake(
            "only the first head",
            lambda model, tokens, length, layer, heads: _score(model, tokens, layer, heads[:1], length - 1, length),
            "Only the first of the heads is silent. One list with an `AblateHead` for each of them, in one run.",
        ),
        Mistake(
            "one query too many",
            lambda model, tokens, length, layer, heads: _score(model, tokens, layer, heads, length - 1, length - 1),
            "The diagonal begins one query too early: the last token of the first telling has no earlier copy.",
        ),
        Mistake(
            "the copy itself",
            lambda model, tokens, length, layer, heads: _score(model, tokens, layer, heads, length, length),
            "You read the attention to the earlier copy **itself** (offset length). What followed it is one nearer.",
        ),
        Mistake(
            "batch kept",
            lambda model, tokens, length, layer, heads: (
                run(model, tokens, [AblateHead(*at) for at in heads])[f"blocks.{layer}.attn.hook_pattern"]
                .diagonal(1 - length, dim1=-2, dim2=-1)[..., 1:]
                .mean(2)
            ),
            "One number for each head: average over the batch, too.",
        ),
    ),
    hints=(
        "Run with the heads silent, read the layer's pattern, and score it as in lesson 4.",
        "`done = wb.run(model, tokens, [wb.AblateHead(l, h) for l, h in heads])`; "
        '`done[f"blocks.{layer}.attn.hook_pattern"]` '
        "is [batch, head, query_pos, key_pos].",
        "`pattern.diagonal(1 - length, dim1=-2, dim2=-1)[..., 1:].mean((0, 2))`",
    ),
    compare=close(rtol=1e-3, atol=1e-4),
)


# -------------------------------------------------------------------------------------------------------- path patching


def _writes_and_readers(rng: np.random.Generator) -> Iterator[Case]:
    for n, senders, kv_heads, d_head, d_model in ((5, 1, 2, 4, 10), (3, 2, 1, 3, 8)):
        stream = 3 * rng.normal(size=(n, d_model))
        z = rng.normal(size=(2, n, senders, d_head))
        W_O, W_K = rng.normal(size=(senders, d_head, d_model)), rng.normal(size=(kv_heads, d_model, d_head))
        gain, b_K = 0.5 + rng.random(d_model), rng.normal(size=(kv_heads, d_head))
        given = (stream, z[0], z[1], W_O, gain, W_K, b_K)
        yield Case(tuple(_tensor(x) for x in given), about=f"{senders} sending, {kv_heads} key-value heads")


def _keys_by_loops(stream, z_clean, z_corrupt, W_O, gain, W_K, b_K) -> np.ndarray:
    x, a, b, out, g, wk, bk = (t.double().numpy() for t in (stream, z_clean, z_corrupt, W_O, gain, W_K, b_K))
    keys = np.zeros((len(x), len(wk), wk.shape[-1]))
    for pos, row in enumerate(x):
        changed = row + sum((a[pos, head] - b[pos, head]) @ out[head] for head in range(len(out)))
        read = changed / np.sqrt(np.mean(changed**2) + 1e-5) * g
        for kv_head in range(len(wk)):
            keys[pos, kv_head] = read @ wk[kv_head] + bk[kv_head]
    return keys


def _written(z: Tensor, W_O: Tensor) -> Tensor:
    return torch.einsum("phd,hdm->pm", z, W_O)


def _read(x: Tensor, gain: Tensor, W_K: Tensor, b_K: Tensor | float, by: Tensor | None = None) -> Tensor:
    """Keys; ``by`` is the stream whose size the norm divides by."""
    size = (x if by is None else by).pow(2).mean(-1, keepdim=True).add(1e-5).sqrt()
    return torch.einsum("pm,kmd->pkd", x / size * gain, W_K) + b_K


PATCHED_KEYS = Exercise(
    name="patched_keys",
    task="The keys that a later layer makes, when a sender's clean write stands in the corrupted stream",
    cases=_writes_and_readers,
    truth=_keys_by_loops,
    mistakes=(
        Mistake(
            "the corrupted write not taken out",
            lambda x, a, b, W_O, gain, W_K, b_K: _read(x + _written(a, W_O), gain, W_K, b_K),
            "You add the clean write, but the corrupted one is still in the stream: add the **difference**, z_clean − "
            "z_corrupt.",
        ),
        Mistake(
            "the wrong way round",
            lambda x, a, b, W_O, gain, W_K, b_K: _read(x - _written(a - b, W_O), gain, W_K, b_K),
            "The sign: the corrupted write goes out, the clean one comes in.",
        ),
        Mistake(
            "the old norm",
            lambda x, a, b, W_O, gain, W_K, b_K: _read(x + _written(a - b, W_O), gain, W_K, b_K, by=x),
            "You divide by the size of the **old** stream. The layer's norm sees the changed one: RMSNorm after "
            "the change.",
        ),
        Mistake(
            "no norm",
            lambda x, a, b, W_O, gain, W_K, b_K: (
                torch.einsum("pm,kmd->pkd", (x + _written(a - b, W_O)) * gain, W_K) + b_K
            ),
            "The norm is missing: layer 1 reads the stream divided by its root mean square, times the gain.",
        ),
        Mistake(
            "no gain",
            lambda x, a, b, W_O, gain, W_K, b_K: _read(x + _written(a - b, W_O), torch.ones_like(gain), W_K, b_K),
            "The norm's gain is missing: x / rms · gain.",
        ),
        Mistake(
            "no bias",
            lambda x, a, b, W_O, gain, W_K, b_K: _read(x + _written(a - b, W_O), gain, W_K, 0.0),
            "gpt-oss' keys have a bias: + b_K at the end.",
        ),
    ),
    hints=(
        "Three steps: change the stream, normalise it, make keys of it.",
        '`change = einsum(z_clean - z_corrupt, W_O, "pos head d_head, head d_head d_model -> pos d_model")`',
        "`x = stream + change`; `x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * gain`; einsum with W_K; "
        "+ b_K.",
    ),
    points=2,
)


def _swapped_texts(rng: np.random.Generator) -> Iterator[Case]:
    model = nano()
    for heads in ([4], [7], [4, 5]):
        length = 16
        told = rng.permutation(np.arange(20, model.config.d_vocab))[:length].tolist()
        place = int(rng.integers(3, 8))
        other = place + 4
        changed = list(told)
        changed[place], changed[other] = told[other], told[place]
        again = told[: place + 1]
        texts = (torch.tensor([*told, *again]), torch.tensor([*changed, *again]))
        yield Case((model, *texts, (told[place + 1], told[other + 1]), heads), about=f"heads {heads} of layer 0")


def _recovered(
    model: HookedGptOss, clean: Tensor, corrupt: Tensor, answers: tuple[int, int], heads: list[int]
) -> float:
    senders = [tuple(f"L0H{head}" for head in heads)]
    readers = [tuple(f"L1KV{i}.k" for i in range(model.config.n_key_value_heads))]
    texts = (tuple(clean.tolist()), tuple(corrupt.tolist()))
    return float(path_patching(model, *texts, answers, senders, readers, progress=False).recovered.item())


@torch.no_grad()
def _difference(model: HookedGptOss, tokens: Tensor, answers: tuple[int, int], hooks: list | None = None) -> float:
    logits = model.run_with_hooks(tokens[None], fwd_hooks=hooks or [])[0, -1]
    return float(logits[answers[0]] - logits[answers[1]])


@torch.no_grad()
def _patch_difference(model, clean, corrupt, answers, heads, site: str = "keys") -> float:
    """The logit difference after the path's patch; or, by mistake, after that of the heads or of all keys."""
    a, b = (run(model, text[None], sites="all") for text in (clean, corrupt))
    z = "blocks.0.attn.hook_z"
    if site == "z":

        def edit(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()
            x[:, :, heads] = a[z][:, :, heads]
            return x

        return _difference(model, corrupt, answers, [(z, edit)])
    keys = a["blocks.1.attn.hook_k"]
    if site == "keys":
        norm, attn = model.blocks[1].ln1, model.blocks[1].attn
        changed = b["blocks.1.hook_resid_pre"][0] + _written(
            (a[z] - b[z])[0][:, heads], model.blocks[0].attn.W_O[heads]
        )
        keys = _read(changed, norm.w, attn.W_K, attn.b_K)[None]
    return _difference(model, corrupt, answers, [("blocks.1.attn.hook_k", lambda k, hook: keys)])


def _share(model, clean, corrupt, answers, patched: float, to: str = "span") -> float:
    best, worst = _difference(model, clean, answers), _difference(model, corrupt, answers)
    shares = {"span": (patched - worst) / (best - worst), "effect": patched - worst, "clean": patched / best}
    return shares[to]


PATH_EFFECT = Exercise(
    name="path_effect",
    task=(
        "Path patching from heads of layer 0 into the keys of layer 1: the share of the logit difference that it "
        "restores"
    ),
    cases=_swapped_texts,
    truth=_recovered,
    mistakes=(
        Mistake(
            "the heads patched, not the path",
            lambda model, clean, corrupt, answers, heads: _share(
                model, clean, corrupt, answers, _patch_difference(model, clean, corrupt, answers, heads, "z")
            ),
            "You patch the heads' own output, which **every** later reader sees. The path goes into layer 1's keys "
            "alone: "
            "put `patched_keys` in at hook_k.",
        ),
        Mistake(
            "all of the clean keys",
            lambda model, clean, corrupt, answers, heads: _share(
                model, clean, corrupt, answers, _patch_difference(model, clean, corrupt, answers, heads, "all keys")
            ),
            "You put in the clean run's keys, with what **all** writers changed. Only these heads' change may be "
            "in them: "
            "`patched_keys` of the corrupted stream.",
        ),
        Mistake(
            "not a share",
            lambda model, clean, corrupt, answers, heads: _share(
                model, clean, corrupt, answers, _patch_difference(model, clean, corrupt, answers, heads), "effect"
            ),
            "That is the effect in logits. Divide by clean − corrupt, so that 0 is the corrupted run and 1 the "
            "clean one.",
        ),
        Mistake(
            "divided by clean alone",
            lambda model, clean, corrupt, answers, heads: _share(
                model, clean, corrupt, answers, _patch_difference(model, clean, corrupt, answers, heads), "clean"
            ),
            "The scale has two ends: subtract the corrupted difference above **and** below: (patched − corrupt) / "
            "(clean − "
            "corrupt).",
        ),
        Mistake(
            "clean text patched",
            lambda model, clean, corrupt, answers, heads: 1.0,
            "The patched run is as good as the clean one whatever the heads: run the **corrupted** text with the "
            "new keys.",
        ),
    ),
    hints=(
        "Keys first (`patched_keys`), then a run of the corrupted text with these keys, then three logit differences.",
        '`model.run_with_hooks(corrupt[None], fwd_hooks=[("blocks.1.attn.hook_k", lambda k, hook: keys[None])])`',
        "`difference = lambda logits: logits[0, -1, right] - logits[0, -1, wrong]`, then "
        "(patched − corrupt) / (clean − corrupt).",
    ),
    points=3,
    compare=close(rtol=2e-3, atol=1e-3),
)


# --------------------------------------------------------------------------------------------------- composition scores


def _matrices(rng: np.random.Generator) -> Iterator[Case]:
    for d_model, rank in ((8, 3), (12, 2)):
        low = [rng.normal(size=(d_model, rank)) @ rng.normal(size=(rank, d_model)) for _ in range(3)]
        yield Case(tuple(_tensor(m) for m in low), about=f"d_model {d_model}")


def _norm(m: np.ndarray) -> float:
    """Frobenius: from the singular values, not from the entries."""
    return float(np.sqrt(np.square(np.linalg.svd(m, compute_uv=False)).sum()))


def _compositions(ov: Tensor, qk: Tensor, later_ov: Tensor) -> tuple[float, float, float]:
    a, b, c = (m.double().numpy() for m in (ov, qk, later_ov))
    pairs = ((a, b), (a, b.T), (a, c))
    return tuple(_norm(x @ y) / (_norm(x) * _norm(y)) for x, y in pairs)  # pyright: ignore[reportReturnType]


def _three(
    of: Callable[[Tensor, Tensor], Tensor], transpose: tuple[bool, bool] = (False, True)
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    q, k = transpose
    return lambda ov, qk, later: (of(ov, qk.T if q else qk), of(ov, qk.T if k else qk), of(ov, later))


def _scaled(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b).norm() / (a.norm() * b.norm())


COMPOSITIONS = Exercise(
    name="compositions",
    task="Q-, K- and V-composition of two heads from their circuits",
    cases=_matrices,
    truth=_compositions,
    mistakes=(
        Mistake(
            "Q and K exchanged",
            _three(_scaled, (True, False)),
            "Q and K are exchanged. qk is [d_model of the query, d_model of the key]: its **left** side reads "
            "queries, so the "
            "earlier head's writing meets it as ov @ qk; for keys transpose it.",
        ),
        Mistake(
            "the later matrix first",
            _three(lambda a, b: _scaled(b, a)),
            "The order of the product: rows are multiplied from the left, so the **earlier** head's ov comes first.",
        ),
        Mistake(
            "not divided",
            _three(lambda a, b: (a @ b).norm()),
            "Divide by both norms: else a head with large weights seems to compose with everybody.",
        ),
        Mistake(
            "spectral norm",
            _three(
                lambda a, b: (
                    torch.linalg.matrix_norm(a @ b, 2)
                    / (torch.linalg.matrix_norm(a, 2) * torch.linalg.matrix_norm(b, 2))
                )
            ),
            "That is the spectral norm (the largest singular value). Asked is Frobenius': the root of the sum of "
            "all squares.",
        ),
        Mistake(
            "norms of parts",
            _three(lambda a, b: (a * b).norm() / (a.norm() * b.norm())),
            "You multiply entry by entry. What one writes and another reads is a matrix product: `@`.",
        ),
    ),
    hints=(
        "One small function does all three: ‖A B‖ / (‖A‖ ‖B‖), A what the earlier head writes, B what the later "
        "one reads through.",
        "B is qk for queries, qk.T for keys, later_ov for values.",
        "`score = lambda a, b: (a @ b).norm() / (a.norm() * b.norm())`",
    ),
)


def _rotations(rng: np.random.Generator) -> Iterator[Case]:
    for d_model, n in ((8, 4), (6, 1)):
        a = rng.normal(size=(d_model, 3)) @ rng.normal(size=(3, d_model))
        b = rng.normal(size=(d_model, 2)) @ rng.normal(size=(2, d_model))
        turns = np.stack([np.linalg.qr(rng.normal(size=(d_model, d_model)))[0] for _ in range(n)])
        yield Case((_tensor(a), _tensor(b), _tensor(turns)), about=f"{n} rotations of {d_model} dimensions")


def _null(ov: Tensor, reader: Tensor, rotations: Tensor) -> np.ndarray:
    a, b = ov.double().numpy(), reader.double().numpy()
    return np.array([_norm(a @ r.double().numpy() @ b) / (_norm(a) * _norm(b)) for r in rotations])


def _each(of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda ov, reader, rotations: torch.stack([of(ov, reader, r) for r in rotations])


NULL_SCORES = Exercise(
    name="null_scores",
    task="Composition scores after random rotations between writer and reader: what chance gives",
    cases=_rotations,
    truth=_null,
    mistakes=(
        Mistake(
            "turns that cancel",
            _each(lambda a, b, r: _scaled(r @ a, b)),
            "Your rotations change nothing: every number is the score itself. Turning the writer's input, or "
            "writer and "
            "reader alike, leaves the norm of the product. The rotation must stand **between** the two.",
        ),
        Mistake(
            "not divided",
            _each(lambda a, b, r: (a @ r @ b).norm()),
            "Divide by the norms, as in the score itself. (A rotation leaves both as they were.)",
        ),
        Mistake(
            "the mean",
            lambda ov, reader, rotations: _each(lambda a, b, r: _scaled(a @ r, b))(ov, reader, rotations).mean(),
            "One score for **each** rotation is asked: the spread matters as much as the mean.",
        ),
        Mistake(
            "the writer forgotten",
            _each(lambda a, b, r: _scaled(r, b)),
            "The writer is missing: it is ov, turned, then read: ov @ rotation @ reader.",
        ),
    ),
    hints=(
        "A rotation leaves the lengths of what is written as they are, and turns where it points.",
        "It stands between the two: ov @ rotation @ reader.",
        "`(ov @ rotations @ reader).norm(dim=(-2, -1)) / (ov.norm() * reader.norm())`",
    ),
)


# ------------------------------------------------------------------------------------------------- copying and matching


def _circuit(rng: np.random.Generator) -> Iterator[Case]:
    for vocab, d_model, rank, lean in ((30, 8, 3, 0.0), (24, 6, 2, -1.0)):
        embed, unembed = rng.normal(size=(vocab, d_model)), rng.normal(size=(vocab, d_model))
        ov = rng.normal(size=(d_model, rank)) @ rng.normal(size=(rank, d_model))
        unembed = unembed + lean * embed @ ov
        yield Case((_tensor(embed), _tensor(ov), _tensor(unembed)), about=f"{vocab} tokens, rank {rank}")


def _copying(embed: Tensor, ov: Tensor, unembed: Tensor) -> float:
    """From all eigenvalues of the matrix over the vocabulary."""
    e, m, u = (x.double().numpy() for x in (embed, ov, unembed))
    values = np.linalg.eigvals(e @ m @ u.T)
    return float(values.real.sum() / np.abs(values).sum())


def _small(embed: Tensor, ov: Tensor, unembed: Tensor) -> Tensor:
    return torch.linalg.eigvals((ov @ unembed.T @ embed).double())


def _singular(embed: Tensor, ov: Tensor, unembed: Tensor) -> Tensor:
    full = (embed @ ov @ unembed.T).double()
    return full.trace() / torch.linalg.svdvals(full).sum()


COPYING_SCORE = Exercise(
    name="copying_score",
    task="The copying score of an OV circuit: Σ Re λ / Σ |λ| over the vocabulary",
    cases=_circuit,
    truth=_copying,
    mistakes=(
        Mistake(
            "without the vocabulary",
            lambda e, m, u: torch.linalg.eigvals(m.double()).real.sum() / torch.linalg.eigvals(m.double()).abs().sum(),
            "These are the eigenvalues of ov alone. The circuit goes from token to token: embedding, ov, unembedding.",
        ),
        Mistake(
            "absolute values above",
            lambda e, m, u: _small(e, m, u).real.abs().sum() / _small(e, m, u).abs().sum(),
            "You take |Re λ| above. Negative eigenvalues are the point: a head that lowers what it sees scores "
            "below 0.",
        ),
        Mistake(
            "singular values",
            _singular,
            "You divide by singular values. They say how much is moved, not whether a token is sent to itself: take "
            "eigenvalues, `torch.linalg.eigvals`.",
        ),
        Mistake(
            "not divided",
            lambda e, m, u: _small(e, m, u).real.sum(),
            "That is the trace, whose size depends on the weights'. Divide by Σ |λ|, so that it lies between −1 and 1.",
        ),
        Mistake(
            "embedding and unembedding exchanged",
            lambda e, m, u: (
                torch.linalg.eigvals((m @ e.T @ u).double()).real.sum()
                / torch.linalg.eigvals((m @ e.T @ u).double()).abs().sum()
            ),
            "Embedding and unembedding are exchanged: a token comes in by W_E, and goes out by W_U.",
        ),
    ),
    hints=(
        "The full circuit is embed @ ov @ unembed.T, [vocab, vocab]: how much a token that is looked at raises "
        "each logit.",
        "AB and BA have the same eigenvalues apart from zeros: those of the full circuit are those of the small "
        "`ov @ unembed.T @ embed`.",
        "`values = torch.linalg.eigvals(ov @ unembed.T @ embed)`; `values.real.sum() / values.abs().sum()`",
    ),
    points=2,
    compare=close(rtol=1e-3, atol=1e-4),
)


def _streams(rng: np.random.Generator) -> Iterator[Case]:
    for vocab, d_model, d_head in ((40, 8, 4), (25, 12, 6)):
        streams = rng.normal(size=(2, vocab, d_model))
        W_Q, W_K = rng.normal(size=(2, d_model, d_head))
        W_K = W_K + W_Q
        streams[1] += 0.6 * streams[0]
        yield Case(tuple(_tensor(x) for x in (*streams, W_Q, W_K)), about=f"{vocab} tokens")


def _matches(query_stream: Tensor, key_stream: Tensor, W_Q: Tensor, W_K: Tensor) -> float:
    x, y, wq, wk = (t.double().numpy() for t in (query_stream, key_stream, W_Q, W_K))
    hits = 0
    for token in range(len(x)):
        scores = [float((x[token] @ wq) @ (y[other] @ wk)) for other in range(len(y))]
        hits += int(np.argmax(scores)) == token
    return hits / len(x)


def _own(scores: Tensor, dim: int = -1) -> Tensor:
    return (scores.argmax(dim) == torch.arange(len(scores))).float().mean()


MATCHING_SHARE = Exercise(
    name="matching_share",
    task="The share of tokens whose query finds the key of the same token first",
    cases=_streams,
    truth=_matches,
    mistakes=(
        Mistake(
            "argmax over the queries",
            lambda x, y, W_Q, W_K: _own((x @ W_Q) @ (y @ W_K).T, 0),
            "You ask for each key which query likes it best. Asked is for each **query** which key it likes best: "
            "the argmax "
            "runs over the keys, the last axis.",
        ),
        Mistake(
            "W_Q for both",
            lambda x, y, W_Q, W_K: _own((x @ W_Q) @ (y @ W_Q).T),
            "You read queries and keys through the same matrix. Keys go through W_K.",
        ),
        Mistake(
            "streams compared directly",
            lambda x, y, W_Q, W_K: _own(x @ y.T),
            "You compare the streams themselves. The head compares what its W_Q and W_K make of them.",
        ),
        Mistake(
            "the streams exchanged",
            lambda x, y, W_Q, W_K: _own((y @ W_Q) @ (x @ W_K).T),
            "The streams are exchanged: queries come from query_stream, keys from key_stream.",
        ),
        Mistake(
            "a mean score",
            lambda x, y, W_Q, W_K: ((x @ W_Q) @ (y @ W_K).T).diagonal().mean(),
            "That is the mean score of a token with itself. Asked is how often it is the **best** of its row: a share.",
        ),
    ),
    hints=(
        "Make all queries and all keys, then one table of scores [vocab, vocab].",
        "Token t's own key is column t: compare `scores.argmax(-1)` with 0, 1, 2, …",
        "`((query_stream @ W_Q) @ (key_stream @ W_K).T).argmax(-1) == torch.arange(len(query_stream))`, then the mean.",
    ),
)


LESSON = Outline(
    name="05_induction",
    title="Induction: two heads that make one rule",
    minutes=(60, 90),
    able_to=(
        "state induction as a rule, and measure how far a model follows it",
        "break the circuit at one place, and see the other place fail",
        "patch one path between two parts, and say which wire carries the message",
        "read composition and copying from the weights, beside what chance gives, and say what these scores cannot see",
        "name texts on which the rule is wrong or the heads do something else",
    ),
    exercises=(
        INDUCTION_RULE,
        SCORE_WITHOUT,
        PATCHED_KEYS,
        PATH_EFFECT,
        COMPOSITIONS,
        NULL_SCORES,
        MATCHING_SHARE,
        COPYING_SCORE,
    ),
    predictions=(
        "the first telling",
        "one head out",
        "the odd head",
        "weights against paths",
        "who copies",
        "two stories",
    ),
    builds_on=("03_residual_stream", "04_attention"),
)
