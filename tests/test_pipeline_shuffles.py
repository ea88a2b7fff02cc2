"""What crosses from worker to worker: units and counts, on any runner that fuses and lifts combiners."""

from types import SimpleNamespace

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.portability import common_urns
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, translations

from augnet.audits.unit import WorkUnit
from pipeline.audit import build

PRIMITIVES = common_urns.primitives


def audit_pipeline() -> beam.Pipeline:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build(pipeline, SimpleNamespace(units=4, config=SimpleNamespace(output="out")), range(4))
    return pipeline


def test_one_stage_computes_and_only_a_count_leaves_it():
    _, stages = translations.create_and_optimize_stages(
        audit_pipeline().to_runner_api(),
        phases=translations.standard_optimize_phases(),
        known_runner_urns=frozenset([PRIMITIVES.IMPULSE.urn, PRIMITIVES.GROUP_BY_KEY.urn]),
    )
    names = [[transform.unique_name for transform in stage.transforms] for stage in stages]
    (computing,) = (stage for stage in names if "AuditUnits/AuditUnit" in stage)
    assert computing[-1] == "Finalize/WaitForAll/CombineGlobally(CountCombineFn)/CombinePerKey/Precombine"


def test_the_shuffle_before_it_is_of_units():
    shuffled = {}

    class GroupByKeys(PipelineVisitor):
        def visit_transform(self, node: AppliedPTransform) -> None:
            if isinstance(node.transform, beam.GroupByKey):
                shuffled[node.full_label] = str(node.inputs[0].element_type)

    audit_pipeline().visit(GroupByKeys())
    assert WorkUnit.__name__ in shuffled["AuditUnits/Spread/ReshufflePerKey/GroupByKey"]
