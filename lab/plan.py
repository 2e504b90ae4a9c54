# SPDX-License-Identifier: MIT
"""The portslice plan of a lab: what its hosts are, and how the shared prefix is divided."""
from ipaddress import IPv4Network, IPv6Network

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
    return pools | (_pools6(topology) if topology.six else {})


def _pools6(topology: Topology) -> dict:
    """The same countries in IPv6, a /120 at each site: whole addresses for the first, slices for the second."""
    parts = IPv6Network(topology.six.shared).subnets(new_prefix=120)
    return {f"{country.lower()}6": {
        "tags": {"country": country, "trust": "trusted"}, "slice": slice_, "unowned": "reject",
        "addresses": [{"prefix": str(next(parts)), "site": site} for site in topology.sites]}
        for country, slice_ in zip(COUNTRIES, ("whole", 2048))}


def default_classes(pools: dict) -> list:
    """Socket mark 1 chooses the first pool, 2 the second, and so on; by country where the pool has one. A pool of a
    country that was there (the same in IPv6) has no class of its own."""
    classes = []
    for name, pool in pools.items():
        tags = pool.get("tags", {})
        chosen = {"country": tags["country"]} if "country" in tags else dict(tags)
        if chosen not in [rule["tags"] for rule in classes]:
            classes.append({"name": name, "match": {"mark": len(classes) + 1}, "tags": chosen})
    return classes


def _host(topology: Topology, name: str, over: int, more: dict) -> dict:
    underlay = topology.address(name) if over == 4 else topology.address6(name)
    uplinks = [own.dev for own, _ in topology.neighbours(name)]
    return {"site": topology.nodes[name].site, "underlay": underlay, "uplinks": uplinks, **more}


def _line(value) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1 << 20).strip()


def _section(title: str, entries: dict) -> str:
    return f"{title}:\n" + "".join(f"  {key}: {_line(value)}\n" for key, value in entries.items())


def text(topology: Topology, pools: dict | None = None, classes: list | None = None, over: int = 4,
         host: dict | None = None) -> str:
    """The plan as YAML, one entry a line. `pools`, `classes` and what every `host` has are in the plan's own form;
    hosts reach each other over IPv4 or IPv6."""
    pools = default_pools(topology) if pools is None else pools
    classes = default_classes(pools) if classes is None else classes
    edges = (topology.four if over == 4 else topology.six).edges
    sites = {site: {"edge": edge} for site, edge in edges.items()}
    hosts = {name: _host(topology, name, over, host or {}) for name in topology.hosts}
    direct = [topology.internal] + ([topology.six.internal] if topology.six else [])
    return ("version: 1\n" + _section("sites", sites) + _section("hosts", hosts) + _section("pools", pools)
            + "classes:\n" + "".join(f"  - {_line(rule)}\n" for rule in classes)
            + f"direct: {_line(direct)}\n")
