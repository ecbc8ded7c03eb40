"""Fine-tuning of any language model: supervised, by preferences, as reward model or as classifier."""
