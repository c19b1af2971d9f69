"""Attention's part of the walk through a forward; see ``forward.py``."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch

from workbench.model.memory.ledger import Ledger, Sizes
from workbench.model.state import Pass
from workbench.model.tiles import tiling

Tiles = tuple[tuple[int, int], ...]
SQUARE_SITES = ("attn.hook_attn_scores", "attn.hook_pattern")  # [head query_pos key_pos]


def attention(ledger: Ledger, s: Sizes, window: int | None) -> int:
    c = s.config
    q = s.of(s.tokens, c.n_heads, c.d_head)
    kv = s.of(s.tokens, c.n_key_value_heads, c.d_head)
    unturned = reads(ledger, s, "q", q)
    unturned += reads(ledger, s, "k", kv)
    v = reads(ledger, s, "v", kv)
    rot_q = ledger.show("attn.hook_rot_q", turn(ledger, q))
    rot_k = ledger.show("attn.hook_rot_k", turn(ledger, kv))
    ledger.drop(unturned)
    n_keys = s.length + (s.past if window is None else min(s.past, window - 1))
    joined = 2 * s.of(s.batch, n_keys, c.n_key_value_heads, c.d_head)
    with_past = ledger.take(joined if s.past else 0)
    heads_first = ledger.take(joined)
    tiles = tiles_of(s, window, n_keys)
    ledger.take(s.of(s.tokens, c.n_heads) if "attn.hook_sink_logit" in ledger.listened else 0)
    whole = len(tiles) == 1 or any(site in ledger.listened for site in SQUARE_SITES)
    z = ledger.show("attn.hook_z", (shown if whole else streamed)(ledger, s, tiles, q))
    ledger.drop(heads_first, saved=True)
    out = ledger.take(s.stream)
    if "attn.hook_result" in ledger.listened:
        heads_results(ledger, s)
    ledger.drop(z, saved=ledger.trains)
    ledger.drop(rot_q, saved=not whole)
    ledger.drop(rot_k + v + with_past)
    return out


def reads(ledger: Ledger, s: Sizes, which: str, n: int) -> int:
    """A projection of the stream, as queries, keys or values."""
    read = ledger.show_apart(f"attn.hook_{which}_in", s.stream)
    made = ledger.show(f"attn.hook_{which}", ledger.take(n))
    ledger.drop(read, saved=ledger.trains)
    return made


def turn(ledger: Ledger, n: int) -> int:
    """RoPE: a product, the halves swapped, another product, and their sum."""
    passing = ledger.take(2 * n)
    out = ledger.take(n, "rotation")
    ledger.drop(passing)
    return out


def heads_results(ledger: Ledger, s: Sizes) -> None:
    n = s.of(s.tokens, s.config.n_heads, s.config.d_model)
    result = ledger.take(n)
    ledger.pass_by(s.of(s.config.n_heads, s.config.d_head, s.config.d_model))  # W_O laid out by head
    shown = ledger.show("attn.hook_result", ledger.take(n))
    difference = ledger.take(n, "heads' results")
    ledger.pass_by(2 * s.stream, "heads' results")
    ledger.drop(result + shown + difference)


def streamed(ledger: Ledger, s: Sizes, tiles: Tiles, q: int) -> int:
    """One tile at a time, in room that all of them share."""
    c = s.config
    z = ledger.take(q)
    room = ledger.take(3 * s.of(s.batch, c.n_heads, max(rows * (columns + 1) for rows, columns in tiles)))
    # Its queries, scaled and grouped; later its z, before that goes to its place.
    ledger.pass_by(2 * s.of(s.batch, c.n_heads, max(rows for rows, _ in tiles), c.d_head), "a tile of attention")
    ledger.drop(room)
    look_at_sink(ledger, s)
    return z


def look_at_sink(ledger: Ledger, s: Sizes) -> None:
    if "attn.hook_sink" in ledger.listened:
        sink = 2 * s.of(s.tokens, s.config.n_heads)
        ledger.drop(ledger.show_apart("attn.hook_sink", sink // 2) + ledger.take(sink))


def shown(ledger: Ledger, s: Sizes, tiles: Tiles, q: int) -> int:
    """By way of scores and pattern, because they are small or somebody listens: each whole only where it must be."""
    c = s.config
    pairs = [s.of(s.batch, c.n_heads, rows, columns) for rows, columns in tiles]
    every, tile, many = sum(pairs), max(pairs), len(tiles) > 1
    whole, column = s.of(s.batch, c.n_heads, s.length, s.past + s.length), s.of(s.tokens, c.n_heads)
    sees_sink = "attn.hook_sink" in ledger.listened
    one = every if sees_sink or not many else tile  # how much of the scores and of the pattern there is at a time
    ledger.pass_by(2 * q // len(tiles) + tile, "attention scores")
    ledger.save(q)  # the queries, scaled and grouped
    if "attn.hook_attn_scores" in ledger.listened:
        scores = in_one_piece(ledger, "attn.hook_attn_scores", 2 * tile, whole if many else every, many)
    else:
        scores = ledger.take(one)
    patterns = ledger.take(every if ledger.graph else one)
    ledger.pass_by(2 * tile + column, "softmax")  # what goes in, with the sink's column, and what comes out
    ledger.save(every + column)  # what softmax gave, of which the pattern is a copy
    look_at_sink(ledger, s)
    if sees_sink and ledger.graph:
        ledger.save(2 * every)  # the pattern without a sink, and the softmax that it is a copy of
        ledger.pass_by(every, "sink moved")
    if "attn.hook_pattern" in ledger.listened:
        if many:
            # Where the sink is looked at, all tiles' patterns are there before the first is shown.
            ledger.drop(0 if sees_sink else patterns - tile)
            # While a tile's pattern is made, scores and pattern of the one before are still there.
            beside = max(2 * before + 4 * now for before, now in pairwise([0, *pairs])) - 2 * tile
            stays = in_one_piece(ledger, "attn.hook_pattern", 0 if sees_sink else beside, whole, many)
            ledger.save(whole)  # z reads a copy of each tile's part
            ledger.take(0 if ledger.graph else tile, "mixing values")
            ledger.drop(stays + (patterns if sees_sink else tile) + (0 if ledger.graph else tile))
        else:
            ledger.drop(ledger.show("attn.hook_pattern", patterns), saved=True)
    else:
        ledger.drop(patterns, saved=True)
    parts = ledger.take(q if many else 0)
    ledger.take(q, "attention's output")
    ledger.drop(parts + scores)
    return q


def in_one_piece(ledger: Ledger, site: str, beside: int, whole: int, many: bool) -> int:
    """The tiles' parts written into one tensor, or with gradients on padded and joined, past a site."""
    parts = ledger.take((whole if ledger.graph else beside) if many else 0)
    joined = ledger.show(site, ledger.take(whole, f"{site.rpartition('_')[2]} in one piece"))
    ledger.drop(parts)
    return joined


def tiles_of(s: Sizes, window: int | None, n_keys: int) -> Tiles:
    """(queries, columns of keys) of each tile, where there is no padding."""
    return _tiles(s.length, s.past, s.past + s.length - n_keys, window, s.of(s.batch, s.config.n_heads), s.device)


@lru_cache(maxsize=64)
def _tiles(length: int, past: int, dropped: int, window: int | None, bytes_per_score: int, device: str) -> Tiles:
    # One number that stands for all positions: only how many there are counts, and whether they are on the CPU.
    positions = torch.zeros((1, 1), dtype=torch.long, device="cpu" if device == "cpu" else "meta")
    keys = positions.expand(1, past + length)
    found = tiling(Pass(keys[:, past:], keys, None, None), window, dropped, bytes_per_score)
    return tuple((tile.stop - tile.start, tile.last - tile.first) for tile in found.tiles)
