"""Figures by matplotlib, in the colours of the report; it knows arrays, and no audits.

colors.py   the colours of maps, which the report's pages use too
axes.py     `augnet.plot_map` and `augnet.plot_jacobian`
"""
