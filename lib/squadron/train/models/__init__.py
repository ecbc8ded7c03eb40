"""The models that are trained: builders, published architectures, random initialisation, attention, kernels."""
