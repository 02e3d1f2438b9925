"""Loss, perplexity, bits per byte and mixture weights."""
