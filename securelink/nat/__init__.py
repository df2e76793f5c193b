"""The home router: a port mapped on it, its public address, and what is wrong when it can't help.

Pure: `terms`, `pcp` (RFC 6887), `natpmp` (RFC 6886), `stun` (RFC 8489), `ssdp` (UPnP's search),
`timing`, and `diagnosis`, which turns what was observed into one verdict and one next step.
Input and output: `route` finds the gateway, `datagrams` asks it one question, `clients` speaks
PCP and NAT-PMP, `upnp` wraps miniupnpc. On top: `probe` asks all three side by side, `ledger`
remembers in the store what was mapped, `mapping` makes one, `keeper` keeps it.
"""
