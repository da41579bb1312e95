"""Uniform-state diffusion language model (DUO): its noise, loss, sampler and network.

The formulas are derived in MATH.md, beside this package. Paper: "The Diffusion Duality", arXiv 2506.10892.
"""
