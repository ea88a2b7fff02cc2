"""What `--help` says of commands beyond a line, and of their exit statuses."""

from __future__ import annotations

AUDIT_HELP = """\
Computes the Jacobian of the model's outputs with respect to every pixel, for every image, and writes
Jacobian shards, per-image statistics, dataset maps and a report.

examples:
  augnet audit --model model.keras --images photos/ --output audit/
  augnet audit configs/quickstart.yaml --jacobian.outputs=top:5 --store.jacobians=none
  augnet audit config.yaml --direct_running_mode=multi_processing --direct_num_workers=2

Flags override the config file. The same command again goes on where it was interrupted. Flags that augnet
does not know are Beam's (--runner=FlinkRunner --flink_master=host:8081).
"""

VERIFY_HELP = """\
Compares the engine's Jacobians of sampled images with those of judges that share nothing with it but the
Keras model. Three questions are asked: are its rows those of the model in float64 (one of its rows and its
rules has to be judged), do they give the slope of the outputs (one of central differences and the adjoint
identity), and is an image alone what it is among others. A judge leaves out images and directions with a
kink; where that leaves none, more images are drawn, and then it says "not checked".

Exit status 0 means that every question was answered by a judge, and that none found a fault.
"""

COMPARE_HELP = """\
Compares finished audits: of two models, precisions or preprocessings over the same images, or of one model
over two datasets. Three and more are taken as checkpoints in order: every statistic as a series, and the
first compared with the last.

examples:
  augnet compare before/ after/ --output comparison/
  augnet compare before/ after/ --fail-if "margin_l2.p05 drops 10%" --fail-if "new shortcut"
  augnet compare run/*/audit --output comparison/

A rule is one of
  STATISTIC.FIGURE drops|rises AMOUNT   margin_l2.p05 drops 10%, frobenius.mean rises 0.5
  accuracy drops|rises AMOUNT           accuracy drops 0.5pp
  flips > SHARE, negative flips > SHARE flips > 2%
  new shortcut
with FIGURE mean or p01 .. p99, and AMOUNT % of the value before, pp for percent points, or a number. A rule
fails where the whole 95 % interval of the change lies beyond the amount, and passes where it lies within.
Without any rule these are judged: accuracy drops 2pp, margin_l2.p50 drops 25%, frobenius.mean rises 40%,
negative flips > 5%, new shortcut; but none on what neither audit knows (labels, margins, findings).
"""

EXPORT_HELP = """\
Writes a finished audit for another program: images with label, prediction and statistics, a picture, a heat
map of the predicted output's row, a place in the plane near those with a similar heat map, and the cluster of
heat maps inside the predicted class. A cluster is a place to look first, and no finding.

examples:
  augnet export audit/ --to embedding-atlas
  augnet export audit/ --to fiftyone --images all
  augnet export audit/ --to parquet --output tables/audit.parquet
"""

EXIT_STATUS = """\
exit status:
  0  done
  1  the audit ended with a problem, which is named
  2  bad arguments or config, found before any work
  130, 143  stopped by Ctrl-C or SIGTERM; the same command goes on from the finished units
"""

COMPARE_STATUS = """\
exit status:
  0  every rule passed
  1  a rule failed
  2  the audits cannot be compared, or bad arguments
  3  no rule failed, but for one there are not enough images to tell
"""

EXPORT_STATUS = """\
exit status:
  0  done
  1  there is no finished audit, or nothing in it that the program could show
  2  bad arguments, a library that is missing, or something at the place to write to
"""
