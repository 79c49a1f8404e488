"""Where a process listens, from the kernel's tables."""

import ipaddress
from pathlib import Path


def listening(pid):
    """The addresses on which a process has sockets that others can connect to over TCP."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except OSError:  # closed since
            continue
    addresses = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                # of four bytes, in the order of the machine
                words = bytes.fromhex(fields[1].partition(":")[0])
                turned = [words[at : at + 4][::-1] for at in range(0, len(words), 4)]
                address = ipaddress.ip_address(b"".join(turned))
                addresses.add(str(getattr(address, "ipv4_mapped", None) or address))
    return addresses
