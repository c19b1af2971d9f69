/** All views, by name. */
import ablation from "./ablation.js";
import atlas from "./atlas.js";
import attention from "./attention.js";
import effect from "./effect.js";
import generation from "./generation.js";
import graph from "./graph.js";
import history from "./history.js";
import logitLens from "./logit_lens.js";
import patching from "./patching.js";
import routing from "./routing.js";
import steering from "./steering.js";
import tokens from "./tokens.js";

const ALL = [
  tokens, logitLens, attention, routing, patching, ablation, steering, generation, graph, atlas, history, effect,
];

/** @type {Record<string, { name: string, title: string, View: Function }>} */
export const VIEWS = Object.fromEntries(ALL.map((view) => [view.name, view]));
