"""The message in keras_metadata.pb, the file that Keras 2 writes into a SavedModel folder.

Source: `SavedMetadata` of tf_keras/protobuf/saved_metadata.proto, without what is not read here.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_field = descriptor_pb2.FieldDescriptorProto
_file = descriptor_pb2.FileDescriptorProto(name="augnet/saved_metadata.proto", package="augnet")
_object = _file.message_type.add(name="SavedObject")
for _number, _name, _type in (
    (2, "node_id", _field.TYPE_INT32),
    (3, "node_path", _field.TYPE_STRING),
    (4, "identifier", _field.TYPE_STRING),
    (5, "metadata", _field.TYPE_STRING),
):
    _object.field.add(name=_name, number=_number, type=_type, label=_field.LABEL_OPTIONAL)
_file.message_type.add(name="SavedMetadata").field.add(
    name="nodes",
    number=1,
    type=_field.TYPE_MESSAGE,
    type_name=".augnet.SavedObject",
    label=_field.LABEL_REPEATED,
)
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file)

SavedMetadata: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("augnet.SavedMetadata"))
"""`nodes`, one for each Keras object: node_id in the object graph, node_path from the root, metadata."""
