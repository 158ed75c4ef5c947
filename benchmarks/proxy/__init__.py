"""Small experiments on Imagenette that decide recipes: docs/proxy.md has their results.

They are no evidence about ImageNet, only the best that a CPU gives.
"""
