"""Google's classes for the messages of `serving.proto`: what `protoc` would make of the file, read line by line."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

PACKAGE = "featurestore.serving"
FIELD = re.compile(r"(repeated )?([A-Za-z0-9]+) ([a-z0-9_]+) = (\d+);")
VALUE = re.compile(r"([A-Z_]+) = (\d+);")


@cache
def message_classes() -> dict[str, Any]:
    """Every message of the file by name."""
    text = re.sub(r"//.*", "", files("featurestore.serving").joinpath("serving.proto").read_text(encoding="utf-8"))
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package=PACKAGE, syntax="proto3")
    enums = dict(re.findall(r"enum (\w+) \{(.*?)\}", text, re.DOTALL))
    for name, body in enums.items():
        made = file.enum_type.add(name=name)
        for label, number in VALUE.findall(body):
            made.value.add(name=label, number=int(number))
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        _add_message(file.message_type.add(name=name), body, set(enums))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        made.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{made.name}"))
        for made in file.message_type
    }


def _add_message(message: Any, body: str, enums: set[str]) -> None:
    choice = re.search(r"oneof (\w+) \{(.*?)\}", body, re.DOTALL)
    if choice:
        message.oneof_decl.add(name=choice[1])
    for repeated, kind, name, number in FIELD.findall(body):
        field = message.field.add(name=name, number=int(number))
        types = descriptor_pb2.FieldDescriptorProto
        field.label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
        if kind[0].isupper():
            field.type = types.TYPE_ENUM if kind in enums else types.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{kind}"
        else:
            field.type = getattr(types, f"TYPE_{kind.upper()}")
        if choice and f" {name} = {number};" in choice[2]:
            field.oneof_index = 0
