"""Read TensorBoard event files by their format alone."""

import struct


def crc32c(data):
    """The checksum bit by bit (Castagnoli's polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def check_crc(data, checksum):
    """Return `data` if it has the masked checksum of the TFRecord format: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    assert struct.unpack("<I", checksum) == ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32,)
    return data


def read_events(path):
    from tensorboardX.proto.event_pb2 import Event

    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", check_crc(content[:8], content[8:12]))
        events.append(Event.FromString(check_crc(content[12 : 12 + length], content[12 + length : 16 + length])))
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
