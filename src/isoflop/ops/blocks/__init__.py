"""Block attention (Mixture of Block Attention, arXiv 2502.13189): choosing, kernels, decoding."""
