# SPDX-License-Identifier: MIT
"""Programs nobody here wrote, set up so that every request is a fresh connection through a shared address.

Clients of a proxy run on its host outside every class; they reach it by the host's own address. The web servers
log the Host header, by which each program is told from the others; squid sends the host of the URL, an address.
"""
import os
import subprocess
from pathlib import Path

import plane
from lab import Lab
from services import UNBOUND_HEAD

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
WEB1, WEB2, DNS = "203.0.113.2", "203.0.113.130", "203.0.113.6"

SQUID = """http_port {ip}:{port}
acl all_ports port 1-65535
http_access allow all_ports
{outgoing}
client_persistent_connections off
server_persistent_connections off
cache deny all
pid_filename {dir}/squid.pid
cache_log {dir}/squid.log
access_log none
coredump_dir {dir}
pinger_enable off
shutdown_lifetime 0 seconds
"""
HAPROXY = """global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen front
  bind {ip}:{port}
  server web1 203.0.113.2:80 {source}
  server web2 203.0.113.130:80 {source}
"""
NGINX = """daemon off;
user www-data;
worker_processes 1;
pid {dir}/nginx-proxy.pid;
error_log {dir}/nginx-proxy.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;
  upstream web {{ server 203.0.113.2 max_fails=0; server 203.0.113.130 max_fails=0; }}
  server {{
    listen {ip}:{port} backlog=4096;
    keepalive_timeout 0;
    location / {{ proxy_pass http://web; proxy_set_header Host nginx; proxy_bind {bind}; proxy_next_upstream off; }}
  }}
}}
"""
UNBOUND = UNBOUND_HEAD + """  interface: {ip}@{port}
  do-daemonize: no
  do-not-query-localhost: no
  module-config: "iterator"
  tcp-upstream: yes
  outgoing-num-tcp: 800
  max-reuse-tcp-queries: 0
  infra-cache-min-rtt: 5000
forward-zone:
  name: "."
  forward-addr: 203.0.113.6
remote-control:
  control-enable: no
"""


def _configure(lab: Lab, host: str, name: str, text: str, port: int, **more) -> Path:
    folder = lab.state / host
    folder.chmod(0o777)   # squid and nginx give up root
    path = folder / name
    path.write_text(text.format(dir=folder, ip=lab.topology.address(host), port=port, **more))
    return path


def await_listener(lab: Lab, node: str, port: int) -> None:
    listeners = ["ss", "-Hltnu", f"sport = :{port}"]
    lab.wait(lambda: lab.run(node, listeners).stdout, 20, f"{node}: a listener on {port}")


def squid(lab: Lab, host: str, mark: int = 0, address: str = "", wish: str = "",
          port: int = 3128) -> subprocess.Popen:
    """A forward proxy that chooses its class by a socket mark, or its source address; in no class, or in one."""
    lines = [f"tcp_outgoing_mark {mark}"] * bool(mark) + [f"tcp_outgoing_address {address}"] * bool(address)
    path = _configure(lab, host, "squid.conf", SQUID, port, outgoing="\n".join(lines))
    argv = plane.in_class(wish, ["squid", "-N", "-f", path]) if wish else ["squid", "-N", "-f", path]
    process = lab.popen(host, argv, cgroup=lab.cgroup(host), **QUIET)
    await_listener(lab, host, port)
    return process


def haproxy(lab: Lab, host: str, wish: str, port: int = 8081, source: str = "") -> subprocess.Popen:
    path = _configure(lab, host, "haproxy.cfg", HAPROXY, port, source=source and f"source {source}")
    process = plane.popen(lab, host, wish, ["haproxy", "-db", "-f", path], **QUIET)
    await_listener(lab, host, port)
    return process


def nginx(lab: Lab, host: str, wish: str, port: int = 8080, bind: str = "off") -> subprocess.Popen:
    path = _configure(lab, host, "nginx-proxy.conf", NGINX, port, bind=bind)
    process = plane.popen(lab, host, wish, ["nginx", "-e", path.with_suffix(".log"), "-c", path], **QUIET)
    await_listener(lab, host, port)
    return process


def unbound(lab: Lab, host: str, wish: str, port: int = 5300) -> subprocess.Popen:
    """A resolver that never uses a connection twice, and keeps them all open until it ends.

    With fewer than it opens it would close some unread, and with the usual 50 ms of patience give up on a busy
    machine; the kernel tells both by RST.
    """
    path = _configure(lab, host, "unbound.conf", UNBOUND, port, files="unbound")
    process = plane.popen(lab, host, wish, ["unbound", "-c", path], **QUIET)
    await_listener(lab, host, port)
    return process


def iperf3_server(lab: Lab, node: str) -> None:
    lab.popen(node, ["iperf3", "-s"], **QUIET)
    await_listener(lab, node, 5201)


class Answers:
    """What a client program was answered, line by line, once it has ended."""

    def __init__(self, process: subprocess.Popen, good: str):
        self._process, self._good = process, good

    def count(self, timeout: float = 60) -> int:
        """How many lines begin as a good answer does."""
        lines = self._process.communicate(timeout=timeout)[0].splitlines()
        return sum(line.startswith(self._good) for line in lines)


def curl_argv(url: str, count: int, *options, parallel: int = 20) -> list:
    return ["curl", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max", parallel,
            "--connect-timeout", "10", "--max-time", "15", "--header", "Connection: close", *options,
            "--output", "/dev/null", "--write-out", "%{http_code} %{local_ip} %{local_port}\n", f"{url}?[1-{count}]"]


def fetch(lab: Lab, host: str, url: str, count: int, *options, wish: str = "") -> Answers:
    """`count` pages by curl: in a class, or without `wish` outside of all."""
    argv, heard = curl_argv(url, count, *options), {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = plane.popen(lab, host, wish, argv, **heard) if wish else lab.popen(host, argv, **heard)
    return Answers(process, "200 ")


def ask_names(lab: Lab, host: str, names: list, port: int = 5300) -> Answers:
    """One question for each name, by dig over UDP to the host's own resolver."""
    batch = lab.state / host / f"names-{os.urandom(4).hex()}"
    batch.write_text("".join(f"{name} A\n" for name in names))
    process = lab.popen(host, ["dig", f"@{lab.topology.address(host)}", "-p", port, "+tries=1", "+time=10", "+noall",
                               "+comments", "-f", batch], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return Answers(process, ";; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN")
