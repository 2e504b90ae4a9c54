# SPDX-License-Identifier: MIT
"""The portslice plan of a lab: what its hosts are, and how the shared prefix is divided."""
from ipaddress import IPv4Network

import yaml

from topology import Topology

COUNTRIES = ("GB", "IE")


def default_pools(topology: Topology) -> dict:
    """One pool for each country, each with an equal part of the shared prefix at every site."""
    sites, shared = list(topology.sites), IPv4Network(topology.shared)
    parts = list(shared.subnets(prefixlen_diff=(len(COUNTRIES) * len(sites) - 1).bit_length()))
    pools = {}
    for index, country in enumerate(COUNTRIES):
        mine = parts[index * len(sites):(index + 1) * len(sites)]
        pools[country.lower()] = {
            "tags": {"country": country, "trust": "trusted"}, "slice": 2048, "unowned": "reject",
            "addresses": [{"prefix": str(part), "site": site} for part, site in zip(mine, sites)]}
    return pools


def default_classes(pools: dict) -> list:
    """Socket mark 1 chooses the first pool, 2 the second, and so on; by country where the pool has one."""
    classes = []
    for mark, (name, pool) in enumerate(pools.items(), 1):
        tags = pool.get("tags", {})
        chosen = {"country": tags["country"]} if "country" in tags else dict(tags)
        classes.append({"name": name, "match": {"mark": mark}, "tags": chosen})
    return classes


def _host(topology: Topology, name: str, more: dict) -> dict:
    uplinks = [own.dev for own, _ in topology.neighbours(name)]
    return {"site": topology.nodes[name].site, "underlay": topology.address(name), "uplinks": uplinks, **more}


def _line(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1 << 20).strip()


def _section(title: str, entries: dict) -> str:
    return f"{title}:\n" + "".join(f"  {key}: {_line(value)}\n" for key, value in entries.items())


def text(topology: Topology, pools: dict | None = None, classes: list | None = None, host: dict | None = None) -> str:
    """The plan as YAML, one entry a line. `pools`, `classes` and what every `host` has are in the plan's own form."""
    pools = default_pools(topology) if pools is None else pools
    classes = default_classes(pools) if classes is None else classes
    sites = {site: {"edge": edge} for site, edge in topology.sites.items()}
    hosts = {name: _host(topology, name, host or {}) for name in topology.hosts}
    return ("version: 1\n" + _section("sites", sites) + _section("hosts", hosts) + _section("pools", pools)
            + "classes:\n" + "".join(f"  - {_line(rule)}\n" for rule in classes)
            + f"direct: {_line([topology.internal])}\n")
