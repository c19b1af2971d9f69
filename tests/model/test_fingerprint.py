"""The fingerprint follows the weights, however they were changed."""

import torch

from workbench.model import NANO, HookedGptOss, random_weights
from workbench.model.fingerprint import fingerprint


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
