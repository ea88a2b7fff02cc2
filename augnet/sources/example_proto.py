"""The message tf.train.Example, read by protobuf alone: TensorFlow, which also has it, takes seconds to load.

https://www.tensorflow.org/api_docs/python/tf/train/Example
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_LISTS = {"bytes_list": _Field.TYPE_BYTES, "float_list": _Field.TYPE_FLOAT, "int64_list": _Field.TYPE_INT64}


def _message_class() -> Any:
    """The class of Example, in a pool of its own beside TensorFlow's."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="augnet", syntax="proto3")
    for kind, type_ in _LISTS.items():
        _add(file.message_type.add(name=kind), "value", 1, type_, many=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(_LISTS, 1):
        _add(feature, kind, number, _Field.TYPE_MESSAGE, kind).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add(entry, "key", 1, _Field.TYPE_STRING)
    _add(entry, "value", 2, _Field.TYPE_MESSAGE, "Feature")
    _add(features, "feature", 1, _Field.TYPE_MESSAGE, "Features.FeatureEntry", many=True)
    _add(file.message_type.add(name="Example"), "features", 1, _Field.TYPE_MESSAGE, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("augnet.Example"))


def _add(message: Any, name: str, number: int, type_: int, of: str = "", many: bool = False) -> Any:
    """A field of a message, of the type named `of` where it is a message itself."""
    label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=type_, label=label)
    if of:
        field.type_name = f".augnet.{of}"
    return field


Example = _message_class()
"""tf.train.Example: `features.feature` maps names to what is a list of bytes, of floats or of integers."""
