// SPDX-License-Identifier: MIT
#include <errno.h>

#include "plan-text.h"

/* A plan with one mistake, how many findings it gives, and the first of them. */
struct row {
	const char *mistake, *text;
	size_t n;
	unsigned line, column;
	const char *words;
};

/* clang-format off */
static const struct row rows[] = {
	{"an empty file", "", 1, 0, 0, "the file is empty: a plan starts with `version: 1`"},
	{"only a comment", "# nothing\n", 1, 0, 0, "the file is empty: a plan starts with `version: 1`"},
	{"an unclosed brace", "version: 1\nsites: { LHR: {}\nhosts: [\n", 1, 3, 1, "not YAML: did not find expected ',' or '}' while parsing a flow mapping"},
	{"a tab as indentation", "version: 1\nsites:\n	LHR: {}\n", 1, 3, 1, "not YAML: a tab: indent with spaces"},
	{"an unknown alias", "version: *x\n", 1, 1, 10, "not YAML: found undefined alias"},
	{"a byte that is not UTF-8", "version: 1\nsites: \"\xff\"\n", 1, 2, 9, "not YAML: invalid leading UTF-8 octet: use UTF-8 text"},
	{"a second document", PLAN_TEXT "---\nversion: 1\n", 1, 17, 1, "a second YAML document: a plan is one document, remove the `---`"},
	{"a list as plan", "- version\n", 1, 1, 1, "`plan` must be a mapping (key: value), not a list"},
	{"an empty mapping", "{}\n", 4, 1, 1, "a plan needs the key \"hosts\": add it"},
	{"a duplicate key", PLAN_TEXT "direct: []\ndirect: [10.0.0.0/8]\n", 1, 17, 1, "duplicate key \"direct\": it is already on line 16, remove one"},
	{"a host defined twice", PLAN_HEAD "  lhr1: { site: LHR, underlay: 10.1.9.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 3, "duplicate key \"lhr1\": it is already on line 6, remove one"},
	{"a misspelt top-level key", PLAN_TEXT "servces: []\n", 1, 16, 1, "unknown key \"servces\" in a plan: did you mean \"services\"?"},
	{"a key without likeness", PLAN_TEXT "controller: x\n", 1, 16, 1, "unknown key \"controller\" in a plan: remove it"},
	{"a key that is a list", PLAN_TEXT "[a, b]: x\n", 1, 16, 1, "`key` must be one value, not a list"},
	{"a misspelt key of a host", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], mut: 1500 }\n" PLAN_POOLS, 1, 9, 59, "unknown key \"mut\" in a host: did you mean \"mtu\"?"},
	{"a list where a mapping belongs", "version: 1\nsites: [LHR]\nhosts: {}\npools: {}\n", 1, 2, 8, "`sites` must be a mapping (key: value), not a list"},
	{"a mapping where a list belongs", PLAN_TEXT "classes: { gb: 1 }\n", 1, 16, 10, "`classes` must be a list ([a, b] or - a), not a mapping"},
	{"text where a mapping belongs", PLAN_HEAD "  lhr3: LHR\n" PLAN_POOLS, 1, 9, 9, "`host` must be a mapping (key: value), not text"},
	{"a list where a value belongs", PLAN_HEAD "  lhr3: { site: [LHR], underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 17, "`site` must be one value, not a list"},
	{"a number that is text", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], mtu: big }\n" PLAN_POOLS, 1, 9, 64, "`mtu` is \"big\": it must be a number from 576 to 65535"},
	{"a path mtu too small", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], mtu: 575 }\n" PLAN_POOLS, 1, 9, 64, "`mtu` is \"575\": it must be a number from 576 to 65535"},
	{"a path mtu too large", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], mtu: 65536 }\n" PLAN_POOLS, 1, 9, 64, "`mtu` is \"65536\": it must be a number from 576 to 65535"},
	{"a ledger without memory", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], ledger_mib: 0 }\n" PLAN_POOLS, 1, 9, 71, "`ledger_mib` is \"0\": it must be a number from 1 to 4096"},
	{"a ledger of too much memory", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], ledger_mib: 32M }\n" PLAN_POOLS, 1, 9, 71, "`ledger_mib` is \"32M\": it must be a number from 1 to 4096"},
	{"a number that overflows", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], mtu: 99999999999999999999 }\n" PLAN_POOLS, 1, 9, 64, "`mtu` is \"99999999999999999999\": it must be a number from 576 to 65535"},
	{"an empty value", PLAN_HEAD "  lhr3: { site: , underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 17, "`site` is empty: give it a value or remove it"},
	{"a NUL character", PLAN_HEAD "  lhr3: { site: \"L\\0\", underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 17, "`site` has a NUL character in it: remove it"},
	{"a host without a site", PLAN_HEAD "  lhr3: { underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 9, "a host needs the key \"site\": add it"},
	{"no version", "sites: {}\nhosts: {}\npools: {}\n", 1, 1, 1, "a plan needs the key \"version\": add it"},
	{"a version from the future", "version: 2\nsites: {}\nhosts: {}\npools: {}\n", 1, 1, 10, "`version` is \"2\": it must be 1"},
	{"a bad underlay address", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 32, "`underlay` is \"10.1.3\": it must be an address like 192.0.2.1"},
	{"a bad prefix", PLAN_HEAD "pools:\n  gb: { addresses: [ { prefix: 198.51.100.0/33, site: LHR } ] }\n", 1, 10, 32, "`prefix` is \"198.51.100.0/33\": it must be a prefix like 192.0.2.0/24"},
	{"a prefix with host bits", PLAN_HEAD "pools:\n  gb: { addresses: [ { prefix: 198.51.100.77/26, site: LHR } ] }\n", 1, 10, 32, "`prefix` is 198.51.100.77/26, which has host bits set: the network is 198.51.100.64/26"},
	{"address that is a network", PLAN_HEAD "pools:\n  gb: { addresses: [ { address: 198.51.100.0/26, site: LHR } ] }\n", 1, 10, 33, "`address` is one address: use `prefix` for a network"},
	{"prefix and address at once", PLAN_HEAD "pools:\n  gb: { addresses: [ { address: 198.51.100.1, prefix: 198.51.100.0/26, site: LHR } ] }\n", 1, 10, 22, "a block of addresses needs either `prefix` or `address`"},
	{"neither prefix nor address", PLAN_HEAD "pools:\n  gb: { addresses: [ { site: LHR } ] }\n", 1, 10, 22, "a block of addresses needs either `prefix` or `address`"},
	{"a pool without addresses", PLAN_HEAD "pools:\n  gb: { addresses: [] }\n", 1, 10, 20, "pool \"gb\" has no addresses: give it at least one"},
	{"a prefix within another of the pool", PLAN_HEAD "pools:\n  gb:\n    addresses:\n      - { prefix: 198.51.100.0/26, site: LHR }\n      - { address: 198.51.100.7, site: LHR }\n", 1, 13, 20, "198.51.100.7/32 overlaps 198.51.100.0/26 of pool \"gb\" on line 12: an address belongs to one pool"},
	{"a prefix around one of another pool", PLAN_TEXT "  us: { addresses: [ { prefix: 198.51.100.0/24, site: LHR } ] }\n", 2, 16, 32, "198.51.100.0/24 overlaps 198.51.100.0/26 of pool \"gb\" on line 13: an address belongs to one pool"},
	{"a slice size that is no power of two", PLAN_HEAD "pools:\n  gb: { slice: 2000, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 16, "`slice` is \"2000\": it must be one of 128, 256, 512, 1024, 2048, 4096, 8192, 16384, whole"},
	{"a slice size too small", PLAN_HEAD "pools:\n  gb: { slice: 64, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 16, "`slice` is \"64\": it must be one of 128, 256, 512, 1024, 2048, 4096, 8192, 16384, whole"},
	{"a slice size too large", PLAN_HEAD "pools:\n  gb: { slice: 32768, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 16, "`slice` is \"32768\": it must be one of 128, 256, 512, 1024, 2048, 4096, 8192, 16384, whole"},
	{"an unknown policy", PLAN_HEAD "pools:\n  gb: { unowned: refuse, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 18, "`unowned` is \"refuse\": it must be one of reject, drop"},
	{"an unknown answer to pings", PLAN_HEAD "pools:\n  gb: { echo: reply, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 15, "`echo` is \"reply\": it must be one of answer, drop"},
	{"an unknown site of a host", PLAN_HEAD "  lhr3: { site: LHX, underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 17, "unknown site \"LHX\": did you mean \"LHR\"?"},
	{"an unknown site of addresses", PLAN_HEAD "pools:\n  gb: { addresses: [ { address: 198.51.100.1, site: Frankfurt } ] }\n", 1, 10, 53, "unknown site \"Frankfurt\": name one of the plan's sites"},
	{"an unknown host of a service", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr9 }\n", 1, 17, 72, "unknown host \"lhr9\": did you mean \"lhr1\"?"},
	{"an unknown host of a slice", PLAN_TEXT "slices:\n  198.51.100.1: { lrh1: 1 }\n", 1, 17, 19, "unknown host \"lrh1\": did you mean \"lhr1\"?"},
	{"an underlay address used twice", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.1.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 32, "underlay address 10.1.1.1 is that of \"lhr1\" on line 6 too: each needs its own"},
	{"an edge address used twice", "version: 1\nsites:\n  LHR: { edge: 10.1.255.1 }\n  CDG: { edge: 10.1.255.1 }\nhosts: {}\npools: {}\n", 1, 4, 16, "edge address 10.1.255.1 is that of \"LHR\" on line 3 too: each needs its own"},
	{"an underlay address that is shared", PLAN_HEAD "  lhr3: { site: LHR, underlay: 198.51.100.9, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 32, "underlay address 198.51.100.9 lies among the shared addresses of pool \"gb\": give one that is not shared"},
	{"an edge address that is shared", "version: 1\nsites:\n  LHR: { edge: 192.0.2.1 }\nhosts: {}\npools:\n  a: { addresses: [ { address: 192.0.2.1, site: LHR } ] }\n", 1, 3, 16, "edge address 192.0.2.1 lies among the shared addresses of pool \"a\": give one that is not shared"},
	{"two sites, one without edge", "version: 1\nsites:\n  LHR: { edge: 192.0.2.1 }\n  CDG:\nhosts: {}\npools: {}\n", 1, 4, 3, "site \"CDG\" needs an `edge`, the address by which the other sites reach it"},
	{"an underlay address that is multicast", PLAN_HEAD "  lhr3: { site: LHR, underlay: 224.0.0.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 32, "224.0.0.1 is not among unicast addresses: underlay addresses must be"},
	{"an IPv6 underlay address among IPv4 ones", PLAN_HEAD "  lhr3: { site: LHR, underlay: \"2001:db8::1\", uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 32, "this underlay address is IPv6, that of \"LHR\" on line 3 is IPv4: give all underlay and edge addresses of a plan one family"},
	{"an IPv6 edge over IPv4 underlays", "version: 1\nsites:\n  LHR:\n  CDG: { edge: \"2001:db8::1\" }\nhosts:\n  a: { site: LHR, underlay: 192.0.2.1, uplinks: [eth0] }\npools: {}\n", 2, 3, 3, "site \"LHR\" needs an `edge`, the address by which the other sites reach it"},
	{"an IPv4 underlay address under an IPv6 edge", "version: 1\nsites:\n  CDG: { edge: \"2001:db8::1\" }\nhosts:\n  a: { site: CDG, underlay: 192.0.2.1, uplinks: [eth0] }\npools: {}\n", 1, 5, 29, "this underlay address is IPv4, that of \"CDG\" on line 3 is IPv6: give all underlay and edge addresses of a plan one family"},
	{"a link-local underlay address", "version: 1\nsites: { A: }\nhosts:\n  a: { site: A, underlay: \"fe80::1\", uplinks: [eth0] }\npools: {}\n", 1, 4, 27, "fe80::1 is not among unicast addresses: underlay addresses must be"},
	{"an IPv6 underlay address that is multicast", "version: 1\nsites: { A: }\nhosts:\n  a: { site: A, underlay: \"ff02::1\", uplinks: [eth0] }\npools: {}\n", 1, 4, 27, "ff02::1 is not among unicast addresses: underlay addresses must be"},
	{"the loopback address shared", PLAN_HEAD "pools:\n  six: { addresses: [ { address: \"::1\", site: LHR } ] }\n", 1, 10, 34, "::1 is not among unicast addresses: shared addresses must be"},
	{"an IPv6 underlay whose path carries too little", "version: 1\nsites: { A: }\nhosts:\n  a: { site: A, underlay: \"2001:db8::1\", uplinks: [eth0], mtu: 1327 }\npools: {}\n", 1, 4, 64, "`mtu` is 1327: 1280 bytes of IPv6 must fit, encapsulated, so it must be at least 1328"},
	{"IPv6 addresses over a path that carries too little", "version: 1\nsites: { A: }\nhosts:\n  a: { site: A, underlay: 192.0.2.1, uplinks: [eth0], mtu: 1307 }\npools:\n  six: { addresses: [ { address: \"2001:db8::1\", site: A } ] }\n", 1, 4, 60, "`mtu` is 1307: 1280 bytes of IPv6 must fit, encapsulated, so it must be at least 1308"},
	{"a /64 of shared addresses", PLAN_HEAD "pools:\n  six: { slice: whole, addresses: [ { prefix: \"2001:db8::/64\", site: LHR } ] }\n", 1, 10, 47, "with this prefix the plan has more than 65536 addresses, the most that are supported"},
	{"a whole /48 beside a /64", PLAN_HEAD "pools:\n  six: { addresses: [ { prefix: \"2001:db8::/48\", site: LHR }, { prefix: \"2001:db9::/64\", site: LHR } ] }\n", 1, 10, 33, "with this prefix the plan has more than 65536 addresses, the most that are supported"},
	{"one IPv6 address more than are supported", PLAN_HEAD "pools:\n  four: { addresses: [ { address: 198.51.100.1, site: LHR } ] }\n  six: { slice: whole, addresses: [ { prefix: \"2001:db8::/112\", site: LHR } ] }\n", 1, 11, 47, "with this prefix the plan has more than 65536 addresses, the most that are supported"},
	{"an IPv6 prefix with host bits", PLAN_HEAD "pools:\n  six: { addresses: [ { prefix: \"2001:db8::1/120\", site: LHR } ] }\n", 1, 10, 33, "`prefix` is 2001:db8::1/120, which has host bits set: the network is 2001:db8::/120"},
	{"an address dealt in two spellings", "version: 1\nsites: { A: }\nhosts:\n  a: { site: A, underlay: 192.0.2.1, uplinks: [eth0] }\npools:\n  six: { addresses: [ { address: \"2001:db8::1\", site: A } ] }\nslices:\n  \"2001:db8::1\": { a: 1 }\n  2001:0DB8::1: { a: 1 }\n", 1, 9, 3, "2001:db8::1 is already on line 8 in another spelling: remove one"},
	{"no uplinks", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [] }\n" PLAN_POOLS, 1, 9, 51, "`uplinks` is empty: name the interfaces on which packets for shared addresses arrive"},
	{"an uplink named twice", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0, eth0] }\n" PLAN_POOLS, 1, 9, 58, "uplink \"eth0\" is named twice: remove one"},
	{"an impossible interface", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [\"eth 0\"] }\n" PLAN_POOLS, 1, 9, 52, "\"eth 0\" cannot be an interface: names have up to 15 characters and no space, slash or colon"},
	{"an interface name too long", PLAN_HEAD "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0], underlay_interface: abcdefghijklmnop }\n" PLAN_POOLS, 1, 9, 79, "\"abcdefghijklmnop\" cannot be an interface: names have up to 15 characters and no space, slash or colon"},
	{"fewer slices than hosts", PLAN_HEAD "pools:\n  gb:\n    slice: whole\n    addresses: [ { address: 198.51.100.1, site: LHR } ]\n", 1, 10, 3, "pool \"gb\" has 1 slice(s) at site \"LHR\", which has 2 host(s): add addresses or make the slices smaller"},
	{"fewer IPv6 addresses than hosts", PLAN_HEAD "pools:\n  six: { slice: whole, addresses: [ { address: \"2001:db8::1\", site: LHR } ] }\n", 1, 10, 3, "pool \"six\" has 1 slice(s) at site \"LHR\", which has 2 host(s): add addresses or make the slices smaller"},
	{"slices that others took", PLAN_HEAD "pools:\n  gb:\n    slice: whole\n    addresses: [ { prefix: 198.51.100.0/31, site: LHR } ]\nslices:\n  198.51.100.0: { lhr1: 0 }\n  198.51.100.1: { lhr1: 0 }\n", 1, 10, 3, "pool \"gb\" has 0 free slice(s) at site \"LHR\" for 1 host(s) without one: add addresses"},
	{"a class that no pool serves", PLAN_TEXT "classes:\n  - { name: fr, match: { cgroup: /fr }, tags: { country: FR } }\n", 1, 17, 13, "class \"fr\" matches no pool: none has the tag country: FR"},
	{"a class whose tags no one pool has", "version: 1\nsites: { LHR: }\nhosts: {}\npools:\n  a: { tags: { x: 1 }, addresses: [ { address: 192.0.2.1, site: LHR } ] }\n  b: { tags: { y: 1 }, addresses: [ { address: 192.0.2.2, site: LHR } ] }\nclasses:\n  - { name: c, tags: { x: 1, y: 1 } }\n", 1, 8, 13, "class \"c\" matches no pool: none has all of its tags"},
	{"two classes with one match", PLAN_TEXT "classes:\n  - { name: a, match: { mark: 0x10 }, tags: { country: GB } }\n  - { name: b, match: { mark: 16 }, tags: { country: GB } }\n", 1, 18, 13, "the same match as the class on line 17: change one, only the first would ever serve"},
	{"a class in another's shadow", PLAN_TEXT "classes:\n  - { name: a, match: { cgroup: /p }, tags: { country: GB } }\n  - { name: b, match: { cgroup: /p/q, mark: 1 }, tags: { country: GB } }\n", 1, 18, 13, "the class on line 17 comes first and takes all that this one matches: put this one before it"},
	{"uids in another class's range", PLAN_TEXT "classes:\n  - { name: a, match: { uid: 1000-1999 }, tags: { country: GB } }\n  - { name: b, match: { uid: 1500, to: 203.0.113.0/24 }, tags: { country: GB } }\n", 1, 18, 13, "the class on line 17 comes first and takes all that this one matches: put this one before it"},
	{"a destination within another class's", PLAN_TEXT "classes:\n  - { name: a, match: { to: \"::/0\" }, tags: { country: GB } }\n  - { name: b, match: { to: 203.0.113.0/24 }, tags: { country: GB } }\n  - { name: c, match: { to: \"2001:db8::/32\" }, tags: { country: GB } }\n", 1, 19, 13, "the class on line 17 comes first and takes all that this one matches: put this one before it"},
	{"a user by name", PLAN_TEXT "classes:\n  - { name: a, match: { uid: squid }, tags: { country: GB } }\n", 1, 17, 30, "`uid` is \"squid\": it must be a number from 0 to 4294967294, or a range like 1000-1999 (`id -u NAME` tells a user's)"},
	{"the uid that nobody has", PLAN_TEXT "classes:\n  - { name: a, match: { uid: 4294967295 }, tags: { country: GB } }\n", 1, 17, 30, "`uid` is \"4294967295\": it must be a number from 0 to 4294967294, or a range like 1000-1999 (`id -u NAME` tells a user's)"},
	{"an open range of uids", PLAN_TEXT "classes:\n  - { name: a, match: { uid: 1000- }, tags: { country: GB } }\n", 1, 17, 30, "`uid` is \"1000-\": it must be a number from 0 to 4294967294, or a range like 1000-1999 (`id -u NAME` tells a user's)"},
	{"a range of uids backwards", PLAN_TEXT "classes:\n  - { name: a, match: { uid: 2000-1000 }, tags: { country: GB } }\n", 1, 17, 30, "`uid` is \"2000-1000\", which is empty: write 1000-2000"},
	{"a source that is not shared", PLAN_TEXT "classes:\n  - { name: a, match: { from: 192.0.2.0/24 }, tags: { country: GB } }\n", 1, 17, 31, "class \"a\" takes the source 192.0.2.0/24, which no pool with its tags has: name shared addresses of such a pool"},
	{"a source with host bits", PLAN_TEXT "classes:\n  - { name: a, match: { from: 198.51.100.1/24 }, tags: { country: GB } }\n", 1, 17, 31, "`from` is 198.51.100.1/24, which has host bits set: the network is 198.51.100.0/24"},
	{"a destination that is no prefix", PLAN_TEXT "classes:\n  - { name: a, match: { to: example.com }, tags: { country: GB } }\n", 1, 17, 29, "`to` is \"example.com\": it must be a prefix like 192.0.2.0/24"},
	{"a destination that is shared", PLAN_TEXT "classes:\n  - { name: a, match: { to: 198.51.100.8/29 }, tags: { country: GB } }\n", 1, 17, 29, "198.51.100.8/29 lies within the shared addresses on line 13, to which nothing connects: name other destinations"},
	{"a destination that is direct", PLAN_TEXT "direct: [10.0.0.0/8]\nclasses:\n  - { name: a, match: { to: 10.9.0.0/16 }, tags: { country: GB } }\n", 1, 18, 29, "10.9.0.0/16 lies within the direct network on line 16, so no class serves it: remove one of the two"},
	{"a misspelt match", PLAN_TEXT "classes:\n  - { name: a, match: { uids: 7 }, tags: { country: GB } }\n", 1, 17, 25, "unknown key \"uids\" in a match: did you mean \"uid\"?"},
	{"two classes with one name", PLAN_TEXT "classes:\n  - { name: a, match: { mark: 1 }, tags: { country: GB } }\n  - { name: a, match: { mark: 2 }, tags: { country: GB } }\n", 1, 18, 13, "class \"a\" is already on line 17: rename one"},
	{"a class without tags", PLAN_TEXT "classes:\n  - { name: a, match: { mark: 1 } }\n", 1, 17, 5, "a class needs the key \"tags\": add it"},
	{"a relative cgroup", PLAN_TEXT "classes:\n  - { name: a, match: { cgroup: proxies }, tags: { country: GB } }\n", 1, 17, 33, "`cgroup` is \"proxies\": it must be a path like /proxies/gb"},
	{"a cgroup that climbs", PLAN_TEXT "classes:\n  - { name: a, match: { cgroup: /a/../b }, tags: { country: GB } }\n", 1, 17, 33, "`cgroup` is \"/a/../b\": it must be a path like /proxies/gb"},
	{"a mark of 33 bits", PLAN_TEXT "classes:\n  - { name: a, match: { mark: 0x100000000 }, tags: { country: GB } }\n", 1, 17, 31, "`mark` is \"0x100000000\": it must be a number from 0 to 4294967295"},
	{"a direct network with host bits", PLAN_TEXT "direct: [10.0.0.1/8]\n", 1, 16, 10, "`direct` is 10.0.0.1/8, which has host bits set: the network is 10.0.0.0/8"},
	{"a direct network given twice", PLAN_TEXT "direct:\n  - 10.0.0.0/8\n  - 10.0.0.0/8\n", 1, 18, 5, "this network is already on line 17: remove one"},
	{"a direct network that is a shared one", PLAN_TEXT "direct: [10.0.0.0/8, 198.51.100.64/26]\n", 1, 16, 22, "direct network 198.51.100.64/26 lies within the shared addresses 198.51.100.64/26 of pool \"gb\" on line 14: remove it, or give one that is not shared"},
	{"a direct network within a shared one", PLAN_TEXT "direct:\n  - 198.51.100.8/32\n", 1, 17, 5, "direct network 198.51.100.8/32 lies within the shared addresses 198.51.100.0/26 of pool \"gb\" on line 13: remove it, or give one that is not shared"},
	{"a service on an address not shared", PLAN_TEXT "services:\n  - { name: a, address: 192.0.2.1, port: 2443, protocol: tcp, host: lhr1 }\n", 1, 17, 25, "192.0.2.1 is not a shared address: no pool has it"},
	{"a service in nobody's slice", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\n", 1, 17, 45, "port 2443 lies in slice 1 of 198.51.100.1, which nobody holds: run `portslice plan deal` first, or give \"lhr1\" the slice 1 of 198.51.100.1"},
	{"a service in another's slice", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\nslices:\n  198.51.100.1: { lhr2: 1 }\n", 1, 17, 45, "port 2443 of 198.51.100.1 lies in slice 1, which \"lhr2\" holds: publish it there or choose a port of \"lhr1\""},
	{"a service on a port never leased", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 443, protocol: tcp, host: lhr1 }\n", 1, 17, 45, "port 443 of 198.51.100.1 can belong to nobody: use one from 2048 to 65535"},
	{"a service on a whole address below 1024", PLAN_TEXT "services:\n  - { name: a, address: 203.0.113.0, port: 443, protocol: tcp, host: lhr1 }\nslices:\n  203.0.113.0: { lhr1: 0 }\n", 1, 17, 44, "port 443 of 203.0.113.0 can belong to nobody: use one from 1024 to 65535"},
	{"a service at another site", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: cdg1 }\n", 1, 17, 72, "host \"cdg1\" is not at site \"LHR\", where the address is"},
	{"two services on one port", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\n  - { name: b, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\nslices:\n  198.51.100.1: { lhr1: 1 }\n", 1, 18, 45, "tcp port 2443 of 198.51.100.1 is already published on line 17: choose another"},
	{"two services with one name", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: udp, host: lhr1 }\nslices:\n  198.51.100.1: { lhr1: 1 }\n", 1, 18, 13, "service \"a\" is already on line 17: rename one"},
	{"an unknown protocol", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 2443, protocol: sctp, host: lhr1 }\n", 2, 17, 45, "port 2443 lies in slice 1 of 198.51.100.1, which nobody holds: run `portslice plan deal` first, or give \"lhr1\" the slice 1 of 198.51.100.1"},
	{"port zero", PLAN_TEXT "services:\n  - { name: a, address: 198.51.100.1, port: 0, protocol: tcp, host: lhr1 }\n", 1, 17, 45, "`port` is \"0\": it must be a number from 1 to 65535"},
	{"slices of no address", PLAN_TEXT "slices:\n  lhr1: { lhr1: 1 }\n", 1, 17, 3, "\"lhr1\" is not an address: slices stand below one like 192.0.2.1"},
	{"slices of an address not shared", PLAN_TEXT "slices:\n  192.0.2.1: { lhr1: 1 }\n", 1, 17, 3, "192.0.2.1 is not a shared address: no pool has it"},
	{"slice 0", PLAN_TEXT "slices:\n  198.51.100.1: { lhr1: 0 }\n", 1, 17, 25, "slice 0 of 198.51.100.1: its slices that can be leased are 1 to 31"},
	{"a slice past the last", PLAN_TEXT "slices:\n  198.51.100.1: { lhr1: 32 }\n", 1, 17, 25, "slice 32 of 198.51.100.1: its slices that can be leased are 1 to 31"},
	{"a range past the last slice", PLAN_TEXT "slices:\n  198.51.100.1: { lhr1: \"30-32\" }\n", 1, 17, 25, "slice 32 of 198.51.100.1: its slices that can be leased are 1 to 31"},
	{"a slice dealt twice", PLAN_TEXT "slices:\n  198.51.100.1:\n    lhr1: \"1-3\"\n    lhr2: 3\n", 1, 19, 11, "slice 3 of 198.51.100.1 is dealt twice, also to \"lhr1\" on line 18: a slice has one owner"},
	{"slices that are no list", PLAN_TEXT "slices:\n  198.51.100.1: { lhr1: \"3-x\" }\n", 1, 17, 25, "\"3-x\" is not a list of slices like \"3-4,7\""},
	{"a range backwards", PLAN_TEXT "slices:\n  198.51.100.1: { lhr1: \"7-3\" }\n", 1, 17, 25, "\"7-3\" is not a list of slices like \"3-4,7\""},
	{"a slice at another site", PLAN_TEXT "slices:\n  198.51.100.1: { cdg1: 1 }\n", 1, 17, 19, "host \"cdg1\" is not at site \"LHR\", where this address is"},
	{"a second slice of a whole address", PLAN_TEXT "slices:\n  203.0.113.1: { lhr1: 1 }\n", 1, 17, 24, "slice 1 of 203.0.113.1: a whole address has only slice 0"},
	{"a name with a slash", PLAN_HEAD "  lhr/3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 3, "bad name \"lhr/3\": use 1 to 63 characters of A-Z a-z 0-9 . _ -"},
	{"a name too long", PLAN_HEAD "  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 3, "bad name \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": use 1 to 63 characters of A-Z a-z 0-9 . _ -"},
	{"a name with an escape sequence", PLAN_HEAD "  \"\\e[31m\": { site: LHR, underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS, 1, 9, 3, "bad name \"?[31m\": use 1 to 63 characters of A-Z a-z 0-9 . _ -"},
	{"a tag with a space", PLAN_HEAD "pools:\n  gb: { tags: { \"my country\": GB }, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 17, "bad tag \"my country\": use 1 to 63 characters of A-Z a-z 0-9 . _ -"},
	{"too many addresses", PLAN_HEAD "pools:\n  gb: { addresses: [ { prefix: 100.64.0.0/15, site: LHR } ] }\n", 1, 10, 32, "with this prefix the plan has more than 65536 addresses, the most that are supported"},
	{"too many tags", PLAN_HEAD "pools:\n  gb: { tags: { t0: x, t1: x, t2: x, t3: x, t4: x, t5: x, t6: x, t7: x, t8: x, t9: x, t10: x, t11: x, t12: x, t13: x, t14: x, t15: x, t16: x }, addresses: [ { address: 198.51.100.1, site: LHR } ] }\n", 1, 10, 15, "17 entries in `tags`: at most 16 are supported"},
};
/* clang-format on */

static void every_mistake_is_named_with_its_place_and_remedy(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_diags_clear) struct ps_diags diags = {0};
		ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
		const struct row *row = &rows[i];
		int r = ps_plan_parse(row->text, strlen(row->text), "p.yaml", &diags, &plan);

		print_message("%s\n", row->mistake);
		plan_print(&diags);
		assert_int_equal(r, -EINVAL);
		assert_null(plan);
		assert_int_equal(diags.n, row->n);
		assert_string_equal(diags.items[0].file, "p.yaml");
		assert_int_equal(diags.items[0].line, row->line);
		assert_int_equal(diags.items[0].column, row->column);
		assert_string_equal(diags.items[0].text, row->words);
	}
}

static void a_direct_network_around_shared_addresses_is_well(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan =
		plan_from(PLAN_TEXT "direct: [198.51.100.0/24]\n");

	(void)state;
	assert_int_equal(plan->n_direct, 1);
}

static void all_findings_of_a_file_come_at_once_in_its_order(void **state)
{
	static const char text[] = "version: 3\n"
				   "hosts:\n"
				   "  a: { site: X, underlay: nowhere, uplinks: [eth0] }\n"
				   "slices: { 192.0.2.1: { b: x } }\n"
				   "sites: { Y: {} }\n"
				   "pool: {}\n";
	static const unsigned lines[] = {1, 1, 3, 3, 4, 6};
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;

	(void)state;
	assert_int_equal(ps_diags_add(&diags, 0, "other.yaml", 9, 9, "from before"), 0);
	assert_int_equal(ps_plan_parse(text, strlen(text), "p.yaml", &diags, &plan), -EINVAL);
	plan_print(&diags);
	assert_int_equal(diags.n, 1 + PS_N_ELEMENTS(lines));
	assert_string_equal(diags.items[0].file, "other.yaml");
	for (size_t i = 0; i < PS_N_ELEMENTS(lines); i++)
		assert_int_equal(diags.items[1 + i].line, lines[i]);
}

static void assert_one_finding(const char *text, size_t len, const char *words)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;

	assert_int_equal(ps_plan_parse(text, len, "p.yaml", &diags, &plan), -EINVAL);
	assert_true(diags.n >= 1);
	for (size_t i = 0; i < diags.n; i++) {
		if (strstr(diags.items[i].text, words))
			return;
	}
	plan_print(&diags);
	fail_msg("no finding says \"%s\"", words);
}

/* The text of a plan with n hosts at one of two sites. */
static char *crowd(unsigned n, bool spread)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	(void)fputs("version: 1\npools: {}\nsites:\n", f);
	for (unsigned i = 0; i < (spread ? 20u : 1u); i++)
		(void)fprintf(f, "  s%u: { edge: 10.255.0.%u }\n", i, i);
	(void)fputs("hosts:\n", f);
	for (unsigned i = 0; i < n; i++)
		(void)fprintf(f, "  h%u: { site: s%u, underlay: 10.1.%u.%u, uplinks: [e] }\n", i,
			      spread ? i % 20 : 0, i / 256, i % 256);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void crowds_beyond_the_limits_are_refused(void **state)
{
	static const struct {
		unsigned hosts;
		bool spread;
		const char *words; /* NULL: it is a good plan */
	} crowds[] = {
		{254, false, NULL},
		{255, false, "site \"s0\" has 255 hosts: at most 254"},
		{4096, true, NULL},
		{4097, true, "4097 entries in `hosts`: at most 4096"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(crowds); i++) {
		ps_auto_mem char *text = crowd(crowds[i].hosts, crowds[i].spread);
		ps_auto(ps_plan_free) struct ps_plan *plan = NULL;

		if (crowds[i].words) {
			assert_one_finding(text, strlen(text), crowds[i].words);
			continue;
		}
		plan = plan_from(text);
		assert_int_equal(plan->n_hosts, crowds[i].hosts);
	}
}

static void hostile_files_end_soon_with_a_finding(void **state)
{
	size_t n = 200000;
	ps_auto_mem char *text = malloc(n + 64);
	size_t len = 0;

	(void)state;
	assert_non_null(text);
	memset(text, '[', n);
	assert_one_finding(text, n, "nested more than 32 deep");
	while (len < n)
		len += (size_t)sprintf(text + len, "- &a%zu 1\n", len);
	assert_one_finding(text, len, "anchors");
	len = (size_t)sprintf(text, "direct: &d [");
	while (len < n / 2)
		len += (size_t)sprintf(text + len, "1,");
	len += (size_t)sprintf(text + len, "]\nslices:\n");
	while (len < n)
		len += (size_t)sprintf(text + len, " k%zu: *d\n", len);
	assert_one_finding(text, len, "more than 1000 findings");
}

static void aliases_cannot_make_a_file_endless(void **state)
{
	char text[16384];
	size_t len = (size_t)sprintf(text, "version: 1\nslices:\n  192.0.2.255: &t\n");

	(void)state;
	for (unsigned i = 0; i < 40; i++)
		len += (size_t)sprintf(text + len, "    h%u: 1\n", i);
	for (unsigned i = 0; i < 200; i++)
		len += (size_t)sprintf(text + len, "  192.0.2.%u: *t\n", i);
	assert_one_finding(text, len, "aliases make this file");
}

static void findings_are_never_more_than_a_thousand(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	ps_auto_mem char *text = calloc(1, 100000);
	size_t len = 0;

	(void)state;
	assert_non_null(text);
	for (unsigned i = 0; i < 5000; i++)
		len += (size_t)sprintf(text + len, "key%u: 1\n", i);
	assert_int_equal(ps_plan_parse(text, len, "p.yaml", &diags, &plan), -EINVAL);
	assert_int_equal(diags.n, 1001);
	assert_non_null(strstr(diags.items[1000].text, "more than 1000 findings"));
}

static void text_need_not_end_in_nul(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	size_t len = strlen(PLAN_TEXT);
	ps_auto_mem char *text = malloc(len);

	(void)state;
	assert_non_null(text);
	memcpy(text, PLAN_TEXT, len);
	assert_int_equal(ps_plan_parse(text, len, "p.yaml", &diags, &plan), 0);
	assert_non_null(plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_mistake_is_named_with_its_place_and_remedy),
		cmocka_unit_test(a_direct_network_around_shared_addresses_is_well),
		cmocka_unit_test(all_findings_of_a_file_come_at_once_in_its_order),
		cmocka_unit_test(crowds_beyond_the_limits_are_refused),
		cmocka_unit_test(hostile_files_end_soon_with_a_finding),
		cmocka_unit_test(aliases_cannot_make_a_file_endless),
		cmocka_unit_test(findings_are_never_more_than_a_thousand),
		cmocka_unit_test(text_need_not_end_in_nul),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
