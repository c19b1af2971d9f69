"""The microworld corpora, the trainer of the embedded model nano, and its scorecard."""
