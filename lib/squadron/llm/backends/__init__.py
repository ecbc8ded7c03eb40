"""Ways to reach a model: transformers and vLLM in this process, an OpenAI-compatible address, a script."""
