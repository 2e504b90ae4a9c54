# SPDX-License-Identifier: MIT
"""What tcpdump wrote, packet by packet, with the encapsulation between hosts taken off and noted."""
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
ICMP, TCP, UDP = 1, 6, 17
GUE_PORTS = (6078, 6079, 6080)   # doc/dispatch.md: how many steps are left
RECORD = struct.Struct("<IIII")

_texts = {}


class Outer(NamedTuple):
    """The addresses between hosts, and the port that says how far the packet may go on."""
    source: str
    destination: str
    port: int


class Packet(NamedTuple):
    """An IPv4 packet. Without ports (fragments, other protocols) they are 0; of ICMP they are type and code."""
    source: str
    sport: int
    destination: str
    dport: int
    protocol: int
    flags: int
    seq: int
    ack: int
    outer: Outer | None

    @property
    def flow(self) -> tuple:
        return self.protocol, self.source, self.sport, self.destination, self.dport

    @property
    def back(self) -> tuple:
        """The flow of the packets it answers."""
        return self.protocol, self.destination, self.dport, self.source, self.sport


def _text(packed: bytes) -> str:
    found = _texts.get(packed)
    return found or _texts.setdefault(packed, str(IPv4Address(packed)))


def _ports(data: bytes, at: int, protocol: int) -> tuple:
    if protocol == ICMP:
        return struct.unpack_from("!BB", data, at)
    return struct.unpack_from("!HH", data, at) if protocol in (TCP, UDP) else (0, 0)


def _ipv4(data: bytes, at: int, outer: Outer | None = None) -> Packet:
    protocol, payload = data[at + 9], at + 4 * (data[at] & 15)
    source, destination = _text(data[at + 12:at + 16]), _text(data[at + 16:at + 20])
    follower = (data[at + 6] & 0x1f) << 8 | data[at + 7]
    sport, dport = (0, 0) if follower else _ports(data, payload, protocol)
    if protocol == UDP and dport in GUE_PORTS and not outer:
        return _ipv4(data, payload + 8, Outer(source, destination, dport))
    seq, ack, flags = 0, 0, 0
    if protocol == TCP and not follower:
        seq, ack, _, flags = struct.unpack_from("!IIBB", data, payload + 4)
    return Packet(source, sport, destination, dport, protocol, flags, seq, ack, outer)


def timed(path: Path):
    """(seconds since 1970, frame as far as it was captured) for each whole record of a pcap, that may still grow."""
    data, at = path.read_bytes(), 24
    while at + RECORD.size <= len(data):
        seconds, micros, length, _ = RECORD.unpack_from(data, at)
        at += RECORD.size + length
        if at <= len(data):
            yield seconds + micros / 1e6, data[at - length:at]


def macs(frame: bytes) -> tuple:
    """(destination, source)."""
    return frame[:6].hex(":"), frame[6:12].hex(":")


def frames(path: Path):
    """Every Ethernet frame of a pcap, as far as it was kept, in order."""
    return (frame for _, frame in timed(path))


def read(path: Path) -> list:
    """Every IPv4 packet of a pcap of Ethernet frames, in order."""
    return [_ipv4(frame, 14) for frame in frames(path) if frame[12:14] == b"\x08\x00"]


def resets(packets: list) -> tuple:
    """RSTs sent when either side had sent its FIN already, and all others."""
    closed, late, early = set(), [], []
    for packet in packets:
        if packet.flags & SYN:
            closed -= {packet.flow, packet.back}
        elif packet.flags & FIN:
            closed.add(packet.flow)
        elif packet.flags & RST:
            (late if {packet.flow, packet.back} <= closed else early).append(packet)
    return late, early
