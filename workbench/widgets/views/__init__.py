"""The views, one file each, as the file of the same name in js/src/views/."""

from workbench.widgets.views.ablation import Ablation
from workbench.widgets.views.atlas import AtlasView
from workbench.widgets.views.attention import Attention
from workbench.widgets.views.effect import Effect
from workbench.widgets.views.generation import Generation
from workbench.widgets.views.graph import Graph
from workbench.widgets.views.history import History
from workbench.widgets.views.logit_lens import LogitLens
from workbench.widgets.views.patching import Patching
from workbench.widgets.views.routing import Routing
from workbench.widgets.views.steering import Steering
from workbench.widgets.views.tokens import Tokens

VIEWS = (
    Tokens,
    LogitLens,
    Attention,
    Routing,
    Patching,
    Ablation,
    Steering,
    Generation,
    Graph,
    AtlasView,
    History,
    Effect,
)
__all__ = ["VIEWS"]
