"""Language models behind one protocol: chat models, embedders, reward models, and asking many models many things."""
