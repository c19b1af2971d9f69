"""The fingerprint follows the weights, however they were changed."""

import hashlib
import json
from dataclasses import asdict

import pytest
import torch

from workbench.model import NANO, HookedGptOss, random_weights
from workbench.model.fingerprint import RUN, RUNS, WHOLE_BYTES, fingerprint, products


def test_equal_weights_have_one_name_and_an_edit_through_data_another():
    first, second = (random_weights(HookedGptOss(NANO), 5) for _ in range(2))
    before = fingerprint(first)
    assert before == fingerprint(second)
    first.blocks[1].attn.q.weight.data[3, 4] += 0.25
    assert fingerprint(first) != before
    first.load_state_dict(second.state_dict())
    assert fingerprint(first) == before


def test_one_changed_bit_and_another_shape_change_the_name():
    model = random_weights(HookedGptOss(NANO), 5)
    before = fingerprint(model)
    with torch.no_grad():
        model.unembed.weight[0, 0] = torch.nextafter(model.unembed.weight[0, 0], torch.tensor(9.0))
    assert fingerprint(model) != before
    other = random_weights(HookedGptOss(NANO.with_(n_ctx=2048)), 5)
    assert fingerprint(other) != before


def test_it_is_sha256_of_the_config_and_the_weights_and_nothing_kept_from_before():
    model = random_weights(HookedGptOss(NANO), 5)
    for _ in range(2):
        digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.numpy().tobytes())
        assert fingerprint(model) == digest.hexdigest()[:16]
        model.blocks[0].attn.q.weight.data.neg_()


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.copy_(weight.flip(0)),  # the same sum
        lambda weight: weight[1:4:2, 2].neg_(),
        lambda weight: weight[0, :2].copy_(weight[0, :2].flip(0)),
        lambda weight: weight.copy_(torch.where(weight == 0, weight, -weight)),
        lambda weight: weight[2].add_(torch.tensor([1.0, -1.0]).repeat(weight.shape[1] // 2)),
    ],
    ids=["rows put elsewhere", "two signs", "two elements swapped", "all signs", "as much added as taken"],
)
def test_an_edit_through_data_that_keeps_the_sum_gives_another_name(change):
    model = random_weights(HookedGptOss(NANO), 5)
    weight = model.blocks[2].attn.o.weight.data
    weight[[1, 3], 2] = torch.tensor([0.5, -0.5])
    before, read = fingerprint(model), products(weight.reshape(-1).view(torch.uint8))
    change(weight)
    assert fingerprint(model) != before
    assert products(weight.reshape(-1).view(torch.uint8)) != read, "as it is told on a GPU"


def test_of_a_large_tensor_the_name_follows_every_stretch_of_one_part_in_255_and_no_further():
    model = random_weights(HookedGptOss(NANO.with_(d_vocab=2**15, d_model=256)), 5)
    flat = model.embed.weight.data.reshape(-1)
    assert flat.numel() * flat.element_size() > WHOLE_BYTES
    whole, before, length = flat.clone(), fingerprint(model), -(-flat.numel() // (RUNS - 1))
    for start in (0, 1, 123_457, flat.numel() - length):
        flat[start : start + length] += 1
        assert fingerprint(model) != before, start
        flat.copy_(whole)
        assert fingerprint(model) == before
    flat[RUN + 1] += 1  # between the first run and the second, as the docstring says
    assert fingerprint(model) == before


def test_bytes_that_do_not_begin_or_end_at_a_word_are_told_apart_too():
    read = torch.arange(23, dtype=torch.uint8)
    seen = {tuple(products(part)) for part in (read[1:], read[1:22], read[2:], read[:3], read[1:4])}
    assert len(seen) == 5
