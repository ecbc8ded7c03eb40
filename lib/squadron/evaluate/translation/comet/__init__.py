"""Published checkpoints of COMET read and run: https://github.com/Unbabel/COMET, whose package pins old libraries.

A checkpoint is `hparams.yaml`, which says what the network is, and `checkpoints/model.ckpt`, its weights. Three kinds
are read. A regression on embeddings of the translation, the source and the reference (Rei et al. 2022, wmt22-comet-da).
A unified metric that reads them joined (CometKiwi, Rei et al. 2022). And XCOMET (Guerreiro et al. 2024), which tags
errors as well.
"""
