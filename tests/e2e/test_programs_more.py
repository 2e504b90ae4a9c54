# SPDX-License-Identifier: MIT
"""Programs that know nothing of portslice, each with its own way to connect: what leaves is of this host's slices,
and what the program is told of its own end is what the wire carries.

What a program is told is read from the kernel as its socket ends (`ss --events`), which is what getsockname() gave;
some programs print it as well.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

import place
import plane
import programs
import wire
from programs import DNS, QUIET, WEB1

PYTHON = "/usr/bin/python3"
GB, HOST = "country=GB", "lhr1"
OURS = "198.51.100.1"              # lhr1 holds ports 2048-4095 of it
REDIS, SSH, IPERF3 = 6379, 2222, 5201
URL = f"http://{WEB1}/"

PY = """
import http.client, sys
for source in (None, ('198.51.100.1', 0), ('198.51.100.1', 2100)):
    one = http.client.HTTPConnection('203.0.113.2', 80, 5, source_address=source)
    one.connect()
    print('own', *one.sock.getsockname())
    one.request('GET', '/', headers={'Connection': 'close'})
    assert one.getresponse().status == 200
"""
NODE = """
const http = require('http');
for (const localAddress of [undefined, '198.51.100.1', undefined]) {
  const asked = http.get({host: '203.0.113.2', port: 80, localAddress, agent: false}, (r) => r.resume());
  asked.on('socket', (s) => s.on('connect', () => console.log('own', s.localAddress, s.localPort)));
}
"""
GO = """
package main

import (
	"fmt"
	"net"
	"net/http"
	"sync"
)

func main() {
	var all sync.WaitGroup
	for i := 0; i < 10; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			one, err := net.Dial("tcp", "203.0.113.2:80")
			if err != nil {
				panic(err)
			}
			own := one.LocalAddr().(*net.TCPAddr)
			fmt.Println("own", own.IP, own.Port)
			one.Close()
		}()
	}
	all.Wait()
	bound := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("198.51.100.1")}}
	client := &http.Client{Transport: &http.Transport{DialContext: bound.DialContext, DisableKeepAlives: true}}
	if answer, err := client.Get("http://203.0.113.2/"); err != nil || answer.StatusCode != 200 {
		panic(err)
	}
	udp, err := net.Dial("udp", "203.0.113.6:9")
	if err != nil {
		panic(err)
	}
	udp.Write([]byte("hello"))
	own := udp.LocalAddr().(*net.UDPAddr)
	fmt.Println("own", own.IP, own.Port)
	udp.Close()
}
"""
JAVA = """
import java.net.*;
import java.net.http.*;
public class Connects {
  public static void main(String[] args) throws Exception {
    for (int i = 0; i < 3; i++) {
      try (Socket one = new Socket()) {
        if (i == 1) one.bind(new InetSocketAddress("198.51.100.1", 0));
        one.connect(new InetSocketAddress("203.0.113.2", 80), 5000);
        System.out.println("own " + one.getLocalAddress().getHostAddress() + " " + one.getLocalPort());
      }
    }
    HttpRequest ask = HttpRequest.newBuilder(URI.create("http://203.0.113.2/")).build();
    if (HttpClient.newHttpClient().send(ask, HttpResponse.BodyHandlers.ofString()).statusCode() != 200) System.exit(1);
    System.exit(0);
  }
}
"""


class Seen:
    """What the servers' wires carried while a program ran, and what the kernel told of the same sockets."""

    def __init__(self, lab):
        self._lab, self.told, self.wired = lab, [], []
        self._captures = [lab.capture("web1", "eth0", "(tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn) or udp dst port 5201"),
                          lab.capture("dns1", "eth0", "udp and dst host 203.0.113.6")]

    def __enter__(self):
        self._ss = self._lab.popen(HOST, ["stdbuf", "-oL", "ss", "-EHtun"], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        time.sleep(0.2)    # nothing tells when it listens
        return self

    def _rows(self, count: int) -> list:
        rows, deadline = [], time.monotonic() + 5
        os.set_blocking(self._ss.stdout.fileno(), False)
        while len(rows) < count and time.monotonic() < deadline:
            for line in self._ss.stdout.readlines():
                near, far = (re.sub(r"\[::ffff:|\]|%[^:]*", "", end) for end in line.split()[4:6])
                if far.split(":")[0] in (WEB1, DNS):
                    rows.append(near)
            time.sleep(0.02)
        return sorted(set(rows))

    def __exit__(self, *_):
        for capture in self._captures:
            capture.stop()
        packets = [packet for capture in self._captures for packet in wire.read(capture.path)]
        self.wired = sorted({f"{packet.source}:{packet.sport}" for packet in packets})
        self.told = self._rows(len(self.wired))
        self._ss.send_signal(signal.SIGTERM)
        self._ss.wait(5)


@pytest.fixture(scope="module")
def job(new_lab):
    lab = new_lab()
    owned = plane.start(lab, lab.plan_text())
    folder = lab.state / "web1"
    key = folder / "ssh-key"
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", key], check=True, capture_output=True)
    for argv in (["dropbear", "-F", "-E", "-r", key, "-p", f"{WEB1}:{SSH}", "-P", folder / "dropbear.pid"],
                 ["redis-server", "--bind", WEB1, "--port", REDIS, "--save", "", "--protected-mode", "no", "--dir", folder],
                 ["iperf3", "-s"]):
        lab.popen("web1", argv, **QUIET)
    for port in (SSH, REDIS, IPERF3):
        programs.await_listener(lab, "web1", port)
    return lab, owned


def check(seen: Seen, owned: plane.Plane, count: int) -> None:
    """At least `count` flows, all of this host's slices, all as their programs knew them."""
    assert len(seen.wired) >= count, seen.wired
    for end in seen.wired:
        address, port = end.split(":")
        assert owned.owner(address, int(port)) == HOST, end
    assert seen.told == seen.wired


def printed(text: str) -> list:
    """`own ADDRESS PORT` lines."""
    return sorted(":".join(end) for end in re.findall(r"^own (\S+) (\d+)$", text.replace("::ffff:", ""), re.M))


PROGRAMS = {
    "curl": ["curl", "-sf", URL],
    "curl, an address": ["curl", "-sf", "--interface", OURS, URL],
    "curl, a host": ["curl", "-sf", "--interface", f"host!{OURS}", URL],
    "curl, a device": ["curl", "-sf", "--interface", "if!eth0", URL],
    "curl, a device by its name alone": ["curl", "-sf", "--interface", "eth0", URL],
    "curl, an address and ports": ["curl", "-sf", "--interface", OURS, "--local-port", "2200-2210", URL],
    "curl, an address and one port": ["curl", "-sf", "--interface", f"host!{OURS}", "--local-port", "2300", URL],
    "wget": ["wget", "-q", "-O", "-", URL],
    "wget, an address": ["wget", "-q", "-O", "-", f"--bind-address={OURS}", URL],
    "redis-benchmark": ["redis-benchmark", "-h", WEB1, "-c", "20", "-n", "400", "-t", "ping_mbulk", "-q"],
    "iperf3, TCP": ["iperf3", "-c", WEB1, "-P", "4", "-n", "100K"],
    "iperf3, an address and a port": ["iperf3", "-c", WEB1, "-n", "100K", "-B", OURS],
    "iperf3, UDP": ["iperf3", "-c", WEB1, "-u", "-n", "10K"],
    "dig": ["dig", "+short", "+tries=1", f"@{DNS}", "web1.lab"],
    "dig, an address and a port": ["dig", "-b", f"{OURS}#2400", "+short", "+tries=1", f"@{DNS}", "web1.lab"],
    "dig, TCP": ["dig", "+tcp", "+short", "+tries=1", f"@{DNS}", "web1.lab"],
}
FLOWS = {"redis-benchmark": 20, "iperf3, TCP": 5, "iperf3, UDP": 2, "dig, TCP": 0}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_uses_this_hosts_slices_and_knows_its_own_end(job, name):
    lab, owned = job
    with Seen(lab) as seen:
        done = plane.run(lab, HOST, GB, PROGRAMS[name], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check(seen, owned, FLOWS.get(name, 1))


@pytest.mark.parametrize("options", [[], ["-b", OURS]])
def test_ssh_reaches_its_server_from_our_slice(job, options):
    lab, owned = job
    argv = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-F", "none", *options, "-p", SSH, f"nobody@{WEB1}", "true"]
    with Seen(lab) as seen:
        done = plane.run(lab, HOST, GB, argv, check=False)
    assert "Permission denied" in done.stderr, "the server answered, and refused us as it must"
    check(seen, owned, 1)


def _go(lab) -> list:
    if not shutil.which("go"):
        pytest.skip("no Go compiler: golang-go")
    source, binary = lab.state / "connects.go", lab.state / "connects"
    source.write_text(GO)
    cache = place.build_dir() / "go-cache"
    subprocess.run(["go", "build", "-o", binary, source], check=True, timeout=300, capture_output=True,
                   env={**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0", "GOCACHE": str(cache), "GOFLAGS": ""})
    return [binary]


def _java(lab) -> list:
    if not shutil.which("javac"):
        pytest.skip("no Java compiler: default-jdk-headless")
    (lab.state / "Connects.java").write_text(JAVA)
    subprocess.run(["javac", "-d", lab.state, lab.state / "Connects.java"], check=True, capture_output=True)
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", lab.state, "Connects"]


def _node(lab) -> list:
    if not shutil.which("node"):
        pytest.skip("no Node: nodejs")
    return ["node", "-e", NODE]


@pytest.mark.parametrize("make, count", [(lambda _: [PYTHON, "-c", PY], 3), (_node, 3), (_go, 12), (_java, 4)],
                         ids=["Python", "Node", "Go", "Java"])
def test_a_language_runtime_tells_its_programs_the_truth(job, make, count):
    lab, owned = job
    argv = make(lab)
    with Seen(lab) as seen:
        done = plane.run(lab, HOST, GB, argv, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check(seen, owned, count)
    own = printed(done.stdout)
    assert len(own) >= 3 and set(own) <= set(seen.wired)


PROXIES = {
    "squid, an address": (programs.squid, {"wish": GB, "address": OURS}, 3128),
    "squid, a mark": (programs.squid, {"mark": 1}, 3128),
    "haproxy, an address": (programs.haproxy, {"wish": GB, "source": OURS}, 8081),
    "haproxy, ports": (programs.haproxy, {"wish": GB, "source": f"{OURS}:2500-2599"}, 8081),
    "haproxy, usesrc": (programs.haproxy, {"wish": GB, "source": f"0.0.0.0 usesrc {OURS}"}, 8081),
    "nginx, an address": (programs.nginx, {"wish": GB, "bind": OURS}, 8080),
    "nginx, an address and a port": (programs.nginx, {"wish": GB, "bind": f"{OURS}:2600"}, 8080),
    "nginx, transparent": (programs.nginx, {"wish": GB, "bind": f"{OURS} transparent"}, 8080),
}


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_binds_as_it_is_configured_within_our_slice(job, name):
    lab, owned = job
    start, options, port = PROXIES[name]
    proxy, at = start(lab, HOST, **options), f"http://{lab.topology.address(HOST)}:{port}"
    asked = ["--proxy", at, URL] if start is programs.squid else [f"{at}/"]
    fetch = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *asked]
    with Seen(lab) as seen:    # of web1: haproxy and nginx ask two servers in turn
        pages = [lab.run(HOST, fetch, check=False).stdout for _ in range(6)]
        proxy.terminate()
        proxy.wait(5)
    assert pages == ["200"] * 6
    check(seen, owned, 1 if name.endswith("and a port") else 3)
    assert "ports" not in name or all(2500 <= int(end.split(":")[1]) <= 2599 for end in seen.wired)
