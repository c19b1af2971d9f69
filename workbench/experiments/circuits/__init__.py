"""Parts that do it alone: circuits, runs of nothing but a circuit, and how faithful and complete they are."""
