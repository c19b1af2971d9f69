"""transformer_lens.head_detector, unchanged, on our model: it finds a head that was planted."""

import copy

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformer_lens.head_detector import detect_head

from workbench.model import HookedGptOss
from workbench.model.rope import inverse_frequencies
from workbench.text import Tokenizer

TEXT = "a b c d e f a b c d e f g h"
PLANTED = [(0, 2), (1, 1)]  # one in a sliding layer, one in a full layer


@pytest.fixture(scope="module")
def reader(model: HookedGptOss) -> HookedGptOss:
    """A model that reads words, with a previous-token head planted in two layers."""
    planted = copy.deepcopy(model)
    words = {word: i for i, word in enumerate("abcdefghijklmnopqrstuvwxyz")}
    backend = Backend(WordLevel(words, unk_token="z"))
    backend.pre_tokenizer = WhitespaceSplit()
    planted.tokenizer = Tokenizer(backend)
    for layer, head in PLANTED:
        plant_previous_token_head(planted, layer, head)
    return planted


@torch.no_grad()
def plant_previous_token_head(model: HookedGptOss, layer: int, head: int) -> None:
    """Make a head's score a sum of cos(frequency · (distance − 1)), which is largest at distance 1.

    The query is a constant; the key is the same constant turned by one position, so that the rotations meet there.
    """
    attention, d_head = model.blocks[layer].attn, 16
    angle = inverse_frequencies(model.config.rope, d_head)
    own, shared = slice(d_head * head, d_head * (head + 1)), slice(d_head * (head // 2), d_head * (head // 2 + 1))
    attention.q.weight[own] = 0
    attention.q.bias[own] = torch.cat((torch.ones(8), torch.zeros(8))) * 20
    attention.k.weight[shared] = 0
    attention.k.bias[shared] = torch.cat((angle.cos(), angle.sin())) * 20
    attention.sinks[head] = -1e4


def by_hand(pattern: Tensor, wanted: list[tuple[int, int]]) -> Tensor:
    """Share of a head's attention, sink apart, that goes to the wanted (query, key) pairs."""
    hits = sum(pattern[query, key] for query, key in wanted)
    return torch.as_tensor(hits) / pattern.sum()


def pairs(name: str) -> list[tuple[int, int]]:
    words = TEXT.split()
    n = len(words)
    if name == "previous_token_head":
        return [(q, q - 1) for q in range(1, n)]
    same = [(q, k) for q in range(n) for k in range(q) if words[q] == words[k]]
    return same if name == "duplicate_token_head" else [(q, k + 1) for q, k in same if k + 1 <= q]


def test_the_planted_heads_are_found_and_no_other(reader: HookedGptOss) -> None:
    # Without the current token: the first token has nothing before it.
    with torch.no_grad():
        scores = detect_head(reader, TEXT, "previous_token_head", exclude_current_token=True)
    found = [tuple(cell) for cell in (scores > 0.99).nonzero().tolist()]
    assert found == PLANTED
    assert scores[[0, 1], [2, 1]].min() > 0.9999


@pytest.mark.parametrize("name", ["previous_token_head", "duplicate_token_head", "induction_head"])
def test_scores_are_the_share_of_attention_on_the_pairs_of_that_kind(reader: HookedGptOss, name: str) -> None:
    with torch.no_grad():
        scores = detect_head(reader, TEXT, name)
        cache = reader.run_with_cache(TEXT)[1]
    expected = [[by_hand(cache["pattern", layer][0, head], pairs(name)) for head in range(4)] for layer in range(3)]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_scores_may_leave_out_the_first_token_and_ask_for_some_heads_only(reader: HookedGptOss) -> None:
    with torch.no_grad():
        scores = detect_head(reader, TEXT, "induction_head", heads=[(1, 3)], exclude_bos=True)
        pattern = reader.run_with_cache(TEXT)[1]["pattern", 1][0, 3].clone()
    pattern[:, 0] = 0
    torch.testing.assert_close(scores[1, 3], by_hand(pattern, pairs("induction_head")), rtol=1e-5, atol=1e-6)
    assert (scores == -1).sum() == 11


def test_a_pattern_of_ones_own_is_compared_by_absolute_difference(reader: HookedGptOss) -> None:
    own = torch.eye(14)
    with torch.no_grad():
        scores = detect_head(reader, TEXT, own, error_measure="abs")
        pattern = reader.run_with_cache(TEXT)[1]["pattern", 2][0, 1]
    assert scores[2, 1] == pytest.approx(1 - float((pattern - own).abs().sum()) / 14, abs=6e-4)  # it rounds to 3 digits


def test_several_texts_get_their_mean(reader: HookedGptOss) -> None:
    other = "m n m n o"
    with torch.no_grad():
        both = detect_head(reader, [TEXT, other], "duplicate_token_head")
        each = [detect_head(reader, text, "duplicate_token_head") for text in (TEXT, other)]
    torch.testing.assert_close(both, torch.stack(each).mean(0))
