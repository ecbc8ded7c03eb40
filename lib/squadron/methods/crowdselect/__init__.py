"""CrowdSelect: the instructions that many models' rewards call worth training on (arXiv 2503.01836)."""
