"""Exact rewrites of a graph, one idea per file; each takes a Graph and gives an equal one."""
