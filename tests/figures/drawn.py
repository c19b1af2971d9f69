"""Every figure, drawn from any tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from tests.figures import atlases, studies
from tests.figures.data import attention, comparison, head_scores, lens, lens_apart, loads, routing, text
from workbench import figures
from workbench.figures.lens_difference import lens_difference_heatmap


def _names(tokens: Sequence[str]) -> list[str]:
    """Each once, as names of texts or kinds are."""
    return list(dict.fromkeys(tokens))


DRAWN: dict[str, Callable[[Sequence[str]], go.Figure]] = {
    "tokens": lambda tokens: figures.tokens(text(tokens)),
    "token_values": lambda tokens: figures.token_values(text(tokens).surprise),
    "logit_lens_heatmap": lambda tokens: figures.logit_lens_heatmap(lens(tokens)),
    "lens_difference_heatmap": lambda tokens: lens_difference_heatmap(lens_apart(tokens)),
    "lens_difference_heatmap, kl": lambda tokens: lens_difference_heatmap(lens_apart(tokens), "kl"),
    "attention_pattern": lambda tokens: figures.attention_pattern(attention(tokens)),
    "attention_pattern, window": lambda tokens: figures.attention_pattern(attention(tokens, window=5)),
    "attention_pattern, change": lambda tokens: figures.attention_pattern(
        attention(tokens, window=5), minus=attention(tokens)
    ),
    "routing_ribbon": lambda tokens: figures.routing_ribbon(routing(tokens)),
    "expert_load": lambda tokens: figures.expert_load(routing(tokens)),
    "atlas_load": lambda tokens: figures.atlas_load(atlases.load()),
    "atlas_contexts": lambda tokens: figures.atlas_contexts(atlases.contexts(tokens)),
    "atlas_specialisation": lambda tokens: figures.atlas_specialisation(atlases.specialised(_names(tokens)), 1, 2),
    "atlas_neighbours": lambda tokens: figures.atlas_neighbours(atlases.together(), 3),
    "atlas_effects": lambda tokens: figures.atlas_effects(atlases.without_an_expert(len(tokens))),
    "atlas_effects, loss": lambda tokens: figures.atlas_effects(atlases.without_an_expert(len(tokens)), "loss_change"),
    "next_token_bars": lambda tokens: figures.next_token_bars(comparison(tokens), pos=7),
    "next_token_bars, named": lambda tokens: figures.next_token_bars(comparison(tokens, ["<b>", "$a$"]), pos=7),
    "load_table": lambda tokens: figures.load_table(loads(sorted(set(tokens))), layer=1),
    "head_scores": lambda tokens: figures.head_scores(head_scores()),
    "ablation_heatmap": lambda tokens: figures.ablation_heatmap(studies.swept(_names(tokens)[:4])),
    "swept_heatmap": lambda tokens: figures.swept_heatmap(studies.grid_of(_names(tokens)[:4]), "layer", "word"),
    "swept_heatmap, panels": lambda tokens: figures.swept_heatmap(
        studies.grid_of(_names(tokens)[:4]), "layer", "seed", panels="word", minus=0.5
    ),
    "ablation_bars": lambda tokens: figures.ablation_bars(studies.swept(specs=tokens)),
    "knock_out_curve": lambda tokens: figures.knock_out_curve(studies.knocked_out(tokens)),
    "patching_heatmap": lambda tokens: figures.patching_heatmap(studies.patched(tokens)),
    "patching_heatmap, heads": lambda tokens: figures.patching_heatmap(studies.patched(tokens, "head", "lost")),
    "patching_heatmap, experts": lambda tokens: figures.patching_heatmap(studies.patched(tokens, "expert")),
    "patching_heatmap, together": lambda tokens: figures.patching_heatmap(studies.patched_together(tokens)),
    "direct_logit_attribution": lambda tokens: figures.direct_logit_attribution(studies.direct(tokens)),
    "attribution_graph": lambda tokens: figures.attribution_graph(studies.graph(tokens)),
    "attribution_grid": lambda tokens: figures.attribution_grid(studies.attribution(tokens), near=0.1),
    "attribution_grid, heads": lambda tokens: figures.attribution_grid(studies.attribution(tokens), "head", "effect"),
    "top_edges": lambda tokens: figures.top_edges(studies.edges(tokens)),
    "expert_lens_heatmap": lambda tokens: figures.expert_lens_heatmap(studies.expert_lens(tokens)),
    "expert_lens_heatmap, contribution": lambda tokens: figures.expert_lens_heatmap(
        studies.expert_lens(tokens), "contribution"
    ),
    "tuned_lens_heatmap": lambda tokens: figures.tuned_lens_heatmap(studies.tuned_lens(tokens)),
    "lens_kl": lambda tokens: figures.lens_kl(studies.lens_kl(_names(tokens)[:20])),
    "steering_effect": lambda tokens: figures.steering_effect(studies.steered(tokens)),
    "steering_effect, no controls": lambda tokens: figures.steering_effect(studies.steered(tokens, 0)),
    "probe_scores": lambda tokens: figures.probe_scores(studies.probed(tokens)),
    "neuron_table": lambda tokens: figures.neuron_table(studies.neurons(tokens)),
    "head_circuits": lambda tokens: figures.head_circuits(studies.circuits()),
    "composition_scores": lambda tokens: figures.composition_scores(studies.compositions(), "Q"),
    "expert_similarity": lambda tokens: figures.expert_similarity(studies.similar(_names(tokens)[:1]), tokens[0]),
    "expert_similarity, router": lambda tokens: figures.expert_similarity(studies.similar(None), "router"),
    "router_tokens": lambda tokens: figures.router_tokens(studies.router(tokens), layer=1),
    "embedding_norms": lambda tokens: figures.embedding_norms(studies.norms(tokens)),
    "routing_balance": lambda tokens: figures.routing_balance(studies.statistics(["a"])),
    "routing_information": lambda tokens: figures.routing_information(studies.statistics(["a"])),
    "expert_specialisation": lambda tokens: figures.expert_specialisation(studies.statistics(_names(tokens))),
    "expert_specialisation, speakers": lambda tokens: figures.expert_specialisation(
        studies.statistics(_names(tokens)), "speaker"
    ),
    "expert_coactivation": lambda tokens: figures.expert_coactivation(studies.statistics(["a"])),
    "vocabulary_table": lambda tokens: figures.vocabulary_table(studies.vocabulary(tokens), layer=1),
    "routing_saturation": lambda tokens: figures.routing_saturation(studies.saturated()),
    "routing_contrast": lambda tokens: figures.routing_contrast(studies.contrasted()),
    "expert_transitions": lambda tokens: figures.expert_transitions(studies.paths()),
    "expert_paths": lambda tokens: figures.expert_paths(studies.paths()),
    "mediation_table": lambda tokens: figures.mediation_table(studies.mediated(tokens)),
    "faithfulness_curve": lambda tokens: figures.faithfulness_curve(studies.faithful()),
    "feature_heatmap": lambda tokens: figures.feature_heatmap(studies.featured(tokens)),
    "head_matches": lambda tokens: figures.head_matches(studies.matched()),
}
