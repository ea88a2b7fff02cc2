"""How many planted shortcuts an audit names, and how often it names one where there is none.

    python -m benchmarks.findings --cases DIR --seeds 0:40:2             # while choosing rules: below 3353
    python -m benchmarks.findings --cases DIR --seeds 3353:3953:2 --write  # others, into RESULTS.md

A case is drawn from its seed: a data set, a shortcut or none, a network. Training takes seconds, so does the
audit; `DIR` keeps both, so an interrupted run goes on, and only `--again` audits anew. Whoever changes how
cases are drawn or models are built starts with an empty `DIR`.

    spec                                   what a case is made of
    scenes -> shortcuts, networks -> cases its data, what is planted, the model, and whether it uses that
    audit, baselines                       what is found in a case, by augnet and by what it has to beat
    scoring -> table                       which of it is right
"""
