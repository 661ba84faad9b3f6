"""Where other devices reach this machine, and a code that their cameras can read."""

from __future__ import annotations

import io
import ipaddress
import socket

import psutil

VIRTUAL = ("docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "tun", "tap", "wg", "utun", "cni", "flannel")
"""Interfaces that lead to containers and tunnels: a phone is behind them only if behind no other."""


def local_addresses() -> list[str]:
    """IPv4 addresses of this machine on its networks, the one that a phone most likely reaches first."""
    found = []
    for interface, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if entry.family == socket.AF_INET and not ipaddress.ip_address(entry.address).is_loopback:
                found.append((interface.startswith(VIRTUAL), entry.address.startswith("169.254."), entry.address))
    return [address for *_, address in sorted(found)]


def link(scheme: str, address: str, port: int, invitation: str) -> str:
    """Where the page is. The invitation stands behind #, which browsers do not send and servers do not log."""
    host = f"[{address}]" if ":" in address else address
    return f"{scheme}://{host}:{port}/#{invitation}"


def qr_code(text: str) -> str:
    """A QR code of half blocks for a terminal."""
    import segno

    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out, compact=True)
    return out.getvalue()
