"""The tokens that a checkpoint is verified on: the same for everybody, and longer than the sliding window."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.model.transformer import HookedGptOss

BEYOND_THE_WINDOW = 96  # tokens that the sliding layers must forget some of
TEXT = """\
The ferry to the island leaves at 7:45 and again at noon. In winter there is only one boat, and when the wind \
turns north there is none. Mara had crossed it 112 times, by her own count, before she noticed that the captain \
always sounded the horn twice at the red buoy and never at the green one.
def crossings(log):
    return sum(1 for day in log if day.wind < 9.5 and not day.cancelled)
"Why twice?" she asked him. He pointed at the water: "There are seals (Halichoerus grypus) under it. You would \
want to be woken too." Die Überfahrt dauert 38 Minuten; auf dem Rückweg, mit der Strömung, sind es 31. 海は静か。 \
SELECT boat, AVG(delay) FROM departures WHERE month IN (1, 2, 12) GROUP BY boat; {"red": 2, "green": 0, "unit": \
"horns"}
If x + 7 = 19 then x = 12, and twelve is what the harbour master charged for a bicycle in 1994, tandem or not. \
Nobody ever paid it twice. ¿Y los domingos? Sundays were free, because Sundays the machine that printed the \
tickets rested.
"""


def standard_tokens(model: HookedGptOss) -> tuple[Int[Tensor, "batch pos"], str]:
    """Tokens [1 pos], and "text" or, for a model without a tokenizer, "random" with a fixed seed."""
    config = model.config
    n_tokens = min(config.sliding_window + BEYOND_THE_WINDOW, config.n_ctx)
    if model.tokenizer is None:
        ids = torch.randint(config.d_vocab, (n_tokens,), generator=torch.Generator().manual_seed(0)).tolist()
        return torch.tensor([ids]), "random"
    ids = model.tokenizer.encode(TEXT)
    return torch.tensor([(ids * (n_tokens // len(ids) + 1))[:n_tokens]]), "text"
