"""Train GANs: `edgegan-train`. The contract is in recipe.py, the one loop in loop.py, one file a GAN in recipes/."""
