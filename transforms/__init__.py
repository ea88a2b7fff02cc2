"""Beam transforms: each calls a plain function of augnet/."""
