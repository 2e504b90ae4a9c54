# SPDX-License-Identifier: MIT
"""Rules of the host's firewall that rewrite sources: found, named, and gone once the recipe has been followed."""
import pytest

import hostside
from conftest import ONE_SITE
from hostside import WEB

HOST = "lhr1"
DOCKER = """table ip nat {
    chain DOCKER { }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
    }
}"""
CARELESS = """table inet theirs {
    chain out { oifname "eth0" masquerade; }
    chain post { type nat hook postrouting priority srcnat; ip saddr != 10.0.0.0/8 jump out; }
}"""


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(ONE_SITE)
    lab.start_agents()
    hostside.apply(lab, hostside.dealt(lab))
    return lab


@pytest.fixture(autouse=True)
def no_rules(lab):
    lab.run(HOST, ["nft", "flush", "ruleset"])


def found(lab) -> list:
    return hostside.status(lab, HOST)["masquerade"]


def test_a_rule_that_covers_other_sources_alone_is_none_of_ours(lab):
    lab.run(HOST, ["nft", "-f", "-"], input=DOCKER)
    assert found(lab) == [] and hostside.fetch(lab, HOST).startswith("198.51.100.1:")


def test_a_rule_that_rewrites_our_sources_is_named_and_its_recipe_mends_it(lab):
    lab.run(HOST, ["nft", "-f", "-"], input=CARELESS)
    rule, = found(lab)
    assert (rule["family"], rule["table"], rule["chain"], rule["kind"]) == ("inet", "theirs", "out", "masquerade")
    assert rule["covers"] == "198.51.100.0/25, 198.51.100.128/25"
    assert rule["recipe"] == ("nft insert rule inet theirs post ip saddr '{ 198.51.100.0/25, 198.51.100.128/25 }' return")
    with lab.capture("lhr-r", "s1", f"tcp dst port 80 and dst host {WEB}") as wire:
        assert hostside.fetch(lab, HOST).startswith("10.1.1.1:")
    assert wire.count("src net 198.51.100.0/24") == 0 and wire.count("src host 10.1.1.1") > 0, "the harm it does"
    lab.run(HOST, ["sh", "-c", rule["recipe"]])
    assert found(lab) == [] and hostside.fetch(lab, HOST).startswith("198.51.100.1:")


@pytest.mark.parametrize("rule, is_ours", [
    ("masquerade", True), ("snat to 10.1.1.1", True), ("meta mark 5 masquerade", True),
    ("ip saddr 198.51.100.7 masquerade", True), ("ip saddr 198.51.100.120-198.51.100.130 snat to 10.1.1.1", True),
    ("ip saddr { 10.9.0.0/16, 198.51.100.0/28 } masquerade", True), ("ip saddr != 198.51.100.0/25 masquerade", True),
    ("ip saddr != 198.51.100.0/24 masquerade", False), ("ip saddr { 10.9.0.0/16, 192.0.2.1 } masquerade", False),
    ('iifname "docker0" masquerade', False), ("accept", False)])
def test_which_sources_a_rule_takes(lab, rule, is_ours):
    chain = f"table ip nat {{ chain post {{ type nat hook postrouting priority 100; {rule}; }}; }}"
    lab.run(HOST, ["nft", chain])
    assert bool(found(lab)) is is_ours


def test_the_line_that_a_person_reads_names_the_rule_and_the_recipe(lab):
    lab.run(HOST, ["nft", "-f", "-"], input=CARELESS)
    said = hostside.cli(lab, HOST, "status").stdout
    assert "masquerade" in said and "nft insert rule inet theirs post" in said


def test_without_nft_it_says_that_nobody_looked(lab):
    said = lab.run(HOST, ["/usr/bin/env", "PATH=/nonexistent", hostside.binary("portslice"), "--json", "status"]).stdout
    assert '"masquerade": "not checked' in said
