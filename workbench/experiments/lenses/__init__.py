"""What a place of the residual stream, or one component, says in tokens: logit and tuned lens, direct attribution."""
