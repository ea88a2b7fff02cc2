"""Operations that know their own derivative, and share what they saved between all cotangents.

A tape differentiates once per output and repeats what does not depend on the output; a rule computes masks,
indices and flipped kernels once and applies them to any number of cotangents.
"""
