"""From text to token ids: tokenizers and chat templates."""
