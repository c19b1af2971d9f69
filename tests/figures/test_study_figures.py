"""Patching grids and ablation sweeps as figures: the numbers are the dataset's, tokens are only text."""

import numpy as np
import pytest
import xarray as xr

from tests.figures import atlases
from tests.figures.data import words
from tests.figures.studies import mediated, patched, swept
from workbench import figures


@pytest.mark.parametrize("n", [1, 20, 300])
@pytest.mark.parametrize("kind", ["site", "head", "expert"])
def test_a_grid_shows_its_numbers_and_leaves_out_what_does_nothing_anywhere(n: int, kind: str):
    data = patched(words(n), kind)
    made = figures.patching_heatmap(data)
    if kind == "site":
        np.testing.assert_allclose(np.array(made.data[1].z, float), data.recovered.sel(site="mlp_out"), rtol=1e-5)
    else:
        assert len(made.data[0].z) == 11  # the one that does nothing anywhere is left out


def test_noising_is_drawn_from_what_is_lost():
    made = figures.patching_heatmap(patched(words(5), "expert", "lost"))
    assert "takes away" in made.layout.title.text


def test_the_table_of_effects_has_each_at_its_layer_and_index():
    data = swept()
    made = figures.ablation_heatmap(data)
    for trace, policy in zip(made.data, ("zero", "reroute"), strict=True):
        for _, cell in data.isel(component=data.policy.values == policy).groupby("component"):
            cell = cell.squeeze()
            assert trace.z[int(cell.layer)][int(cell["index"])] == pytest.approx(float(cell.mean_effect), rel=1e-5)


def test_bars_show_the_largest_effects_over_their_floor():
    data = swept()
    made = figures.ablation_bars(data, most=4)
    shown = made.data[1].x
    assert sorted(map(abs, shown)) == pytest.approx(sorted(np.abs(data.mean_effect.values))[-4:])
    assert list(made.data[0].x) == pytest.approx([0.4] * 4) and list(made.data[0].base) == pytest.approx([-0.2] * 4)
    assert len(figures.ablation_bars(swept(floor=False)).data) == 1


def test_the_knock_out_curve_lies_over_the_range_of_random_groups():
    control = np.array([[2.0, 2.0], [1.0, 1.5], [0.5, 1.2]])
    variables = {"mean": ("step", [2.0, 1.0, 0.0]), "chosen": ("step", ["none", "a", "b"])}
    data = xr.Dataset(variables | {"control_mean": (("step", "control"), control)}, {"step": [0, 1, 2]})
    band, line = figures.knock_out_curve(data).data
    assert list(line.y) == [2.0, 1.0, 0.0] and list(band.y) == [2.0, 1.5, 1.2, 0.5, 1.0, 2.0]


def test_without_random_groups_the_curve_stands_alone():
    variables = {"mean": ("step", [2.0, 1.0]), "chosen": ("step", ["none", "a"])}
    data = xr.Dataset(variables | {"control_mean": (("step", "control"), np.zeros((2, 0)))}, {"step": [0, 1]})
    (line,) = figures.knock_out_curve(data).data
    assert list(line.y) == [2.0, 1.0]


def test_a_sweep_that_was_cancelled_at_once_is_an_empty_table():
    data = swept()
    made = figures.ablation_heatmap(data.assign(mean_effect=data.mean_effect * np.nan))
    assert all(value is None for row in made.data[0].z for value in row)


def test_datasets_of_another_kind_are_refused():
    for draw in (figures.patching_heatmap, figures.ablation_heatmap, figures.ablation_bars, figures.knock_out_curve):
        with pytest.raises(ValueError, match="this figure draws what experiments"):
            draw(xr.Dataset({"x": ("pos", [1.0])}))


def test_what_a_dataset_does_not_have_is_named_with_what_it_has():
    with pytest.raises(ValueError, match="row=9: this dataset has rows 0 to"):
        figures.mediation_table(mediated(words(3)), row=9)
    for draw in (
        lambda: figures.atlas_specialisation(atlases.specialised(["a", "b"]), 9, 2),
        lambda: figures.atlas_specialisation(atlases.specialised(["a", "b"]), 1, 99),
        lambda: figures.atlas_neighbours(atlases.together(), 99),
    ):
        with pytest.raises(ValueError, match=r"this dataset has (layer|expert)s 0 to"):
            draw()
