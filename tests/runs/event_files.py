"""Read TensorBoard event files by their format alone."""

import struct


def read_events(path):
    from tensorboardX.proto.event_pb2 import Event

    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q4x", content[:12])  # and a checksum, as after the event
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def shown_values(folder):
    """Return tag -> step -> value as TensorBoard shows it: a new session discards the steps from its first on."""
    values = {}
    for path in sorted(folder.iterdir()):
        for event in read_events(path):
            if event.HasField("session_log"):
                for steps in values.values():
                    for step in [step for step in steps if step >= event.step]:
                        del steps[step]
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = value.simple_value
    return values
