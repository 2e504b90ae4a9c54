# SPDX-License-Identifier: MIT
"""What Internet nodes offer: nginx as web server, unbound as DNS server. Plain processes, one node each."""
from pathlib import Path

import net
import place
from topology import INTERNET, Topology

NGINX = """user www-data;
worker_processes 2;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 8192; }}
http {{
  log_format lab '$remote_addr $remote_port $host $status';
  access_log {dir}/access.log lab;
  keepalive_timeout {keepalive};
  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;
  server {{
    listen 80 backlog=65535;{listen6}
    root {dir}/www;
    location = / {{ default_type text/plain; return 200 "$remote_addr:$remote_port at {node}\\n"; }}
  }}
}}
"""
LARGE_TEXTS = 14
# How every unbound of the lab and its tests begins: for everybody, all its files in its own directory.
UNBOUND_HEAD = """server:
  access-control: 0.0.0.0/0 allow
  chroot: ""
  username: ""
  directory: "{dir}"
  pidfile: "{dir}/{files}.pid"
  logfile: "{dir}/{files}.log"
  use-syslog: no
  do-ip6: no
"""
UNBOUND = UNBOUND_HEAD + """  interface: 0.0.0.0
  do-daemonize: yes
  incoming-num-tcp: 1000
  module-config: "iterator"
  max-udp-size: 4096
  local-zone: "{zone}." static
{data}remote-control:
  control-enable: no
"""


def _web(topology: Topology, node: str, given: dict, state: Path) -> list:
    """/ tells the caller its address and port; /large is a file of large_mb MiB (sparse: no disk, no memory)."""
    (state / "www").mkdir()
    with open(state / "www" / "large", "wb") as large:
        large.truncate(given.get("large_mb", 16) << 20)
    keepalive = 65 if given.get("keepalive", True) else 0
    (state / "nginx.conf").write_text(NGINX.format(
        dir=state, node=node, keepalive=keepalive,
        listen6=" listen [::]:80 backlog=65535 ipv6only=on;" if topology.six else ""))
    return ["nginx", "-e", str(state / "error.log"), "-c", str(state / "nginx.conf")]


def _dns(topology: Topology, node: str, zone: str, state: Path) -> list:
    """An address for each Internet node; `large` has LARGE_TEXTS texts of 250 bytes, over 3,600 bytes of answer."""
    data = "".join(f'  local-data: "{other.name}.{zone}. 60 IN A {topology.address(other.name)}"\n'
                   for other in topology.of_kind(INTERNET))
    data += "".join(f"  local-data: 'large.{zone}. 60 IN TXT \"{number:02}{'x' * 248}\"'\n"
                    for number in range(LARGE_TEXTS))
    (state / "unbound.conf").write_text(UNBOUND.format(dir=state, files="unbound", zone=zone, data=data))
    return ["unbound", "-c", str(state / "unbound.conf")]


KINDS = {"web": _web, "dns": _dns}


def start(topology: Topology, name: str) -> None:
    """Both daemons return once they listen and have written their pid file."""
    jobs = []
    for node in topology.of_kind(INTERNET):
        for kind, given in node.services.items():
            if kind in KINDS:
                argv = KINDS[kind](topology, node.name, given, place.state(name) / node.name)
                jobs.append(([*net.enter(name, node.name), *argv], None))
    net.run_all(jobs)
