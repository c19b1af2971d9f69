"""What changed between two atlases of the same documents, counted route by route."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from tests.atlases.conftest import MAX_LENGTH, routes_of
from workbench.atlases import AtlasError
from workbench.atlases import compare as module
from workbench.atlases.compare import jensen_shannon

QUIET = {"max_length": MAX_LENGTH, "part_tokens": 500, "batch_tokens": 512, "progress": False}
SPECS = [wb.AblateExpert(0, 2), wb.AblateHead(1, 4)]


@pytest.fixture(scope="module")
def edited(nano, documents, tmp_path_factory):
    return wb.atlas(nano, documents, tmp_path_factory.mktemp("edited") / "a", interventions=SPECS, **QUIET)


@pytest.fixture(scope="module")
def sets(nano, ids, documents, truth):
    """(layer, document, position) → the experts of a token, before and after."""
    key = ["layer", "document", "position"]
    after = routes_of(nano, ids, documents, SPECS)
    return tuple(table.sort_values("slot").groupby(key)["expert"].apply(tuple).to_dict() for table in (truth, after))


@pytest.mark.parametrize("rows", (module.ROWS, 2000), ids=("at once", "in stretches"))
def test_agreement_drift_and_the_most_changed_tokens_are_counted_route_by_route(
    atlas, edited, sets, truth, rows, monkeypatch
):
    monkeypatch.setattr(module, "ROWS", rows)
    found = atlas.compare(edited, n=20)
    before, after = sets
    for layer in range(4):
        keys = [key for key in before if key[0] == layer]
        same = [len(set(before[key]) & set(after[key])) for key in keys]
        assert float(found["set_agreement"][layer]) == np.mean([n == 2 for n in same])
        assert float(found["first_agreement"][layer]) == np.mean([before[key][0] == after[key][0] for key in keys])
        np.testing.assert_allclose(float(found["overlap"][layer]), np.mean(same) / 2)
        loads = [np.bincount([e for key in keys for e in table[key]], minlength=8) / len(keys) for table in sets]
        np.testing.assert_allclose(found["load_a"][layer], loads[0])
        np.testing.assert_allclose(found["load_b"][layer], loads[1])
        np.testing.assert_allclose(found["load_change"][layer], loads[1] - loads[0])
        for expert in range(8):
            mine = [key for key in keys if expert in before[key]]
            kept = np.mean([expert in after[key] for key in mine])
            np.testing.assert_allclose(float(found["kept"].sel(layer=layer, expert=expert)), kept)
    assert float(found["kept"].sel(layer=0, expert=2)) == 0 and float(found["set_agreement"][0]) < 1
    changed = {}
    for key in before:
        changed[key[1:]] = changed.get(key[1:], 0) + 2 - len(set(before[key]) & set(after[key]))
    order = sorted(changed, key=lambda place: (-changed[place], place))[:20]
    assert list(zip(found["document"].values, found["position"].values, strict=True)) == order
    assert found["changed_routes"].values.tolist() == [changed[place] for place in order]
    ids = truth.drop_duplicates(["document", "position"]).set_index(["document", "position"])["token"]
    assert found["token"].values.tolist() == [ids[place] for place in order]
    share, count = {}, {}
    for place, n in changed.items():
        share[ids[place]], count[ids[place]] = share.get(ids[place], 0) + n, count.get(ids[place], 0) + 1
    best = max(share[token] / count[token] / 8 for token in share if count[token] >= 5)
    assert float(found["type_share"][0]) == best and bool((found["type_count"] >= 5).all())


def test_an_atlas_and_itself_agree_in_everything(atlas, folder):
    found = wb.atlas.compare(atlas, folder)
    for name in ("set_agreement", "first_agreement", "overlap", "kept"):
        assert bool((found[name] == 1).all())
    assert not found["jensen_shannon"].any() and not found["load_change"].any() and not found.sizes["changed"]


def test_the_divergence_is_in_bits():
    apart = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]])
    other = np.array([[0, 1.0, 0], [0.5, 0.5, 0], [0.5, 0.3, 0.2]])
    middle = (apart[2] + other[2]) / 2
    third = (np.sum(apart[2] * np.log2(apart[2] / middle)) + np.sum(other[2] * np.log2(other[2] / middle))) / 2
    np.testing.assert_allclose(jensen_shannon(apart, other), [1, 0, third], atol=1e-15)


def test_atlases_of_other_tokens_are_not_compared(atlas, nano, documents, tmp_path):
    fewer = wb.atlas(nano, documents[:5], tmp_path / "fewer", **QUIET)
    with pytest.raises(AtlasError, match="of 38 and 5 documents: expected the same corpus"):
        atlas.compare(fewer)
    another = wb.atlas(nano, [*documents[:3], "Another.", *documents[4:]], tmp_path / "another", **QUIET)
    with pytest.raises(AtlasError, match=r"1 of 38 documents have other tokens, the first is 3 \('d3' and '3'\)"):
        atlas.compare(another)
    with pytest.raises(AtlasError, match="n=0: expected at least 1"):
        atlas.compare(atlas, n=0)
    nano_without = wb.load("nano")
    nano_without.tokenizer = None
    ids = wb.atlas(nano_without, [[1, 2]], tmp_path / "ids", **QUIET)
    with pytest.raises(AtlasError, match="different tokenizers"):
        atlas.compare(ids)
