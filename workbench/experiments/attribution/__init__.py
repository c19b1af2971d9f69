"""Where an answer travels, guessed for every component or edge at once from gradients."""
