"""What belongs to the papers: their numbers as data, their claims judged, their figures' rules.

Mixture-of-Depths is arXiv 2404.02258, Mixture of Block Attention arXiv 2502.13189.
"""
