#!/usr/bin/env bash
# Runs a command beside a real S3 server: one Ceph node (monitor, object store in memory, RADOS gateway) on loopback.
#
#     infra/ceph-rgw.sh COMMAND [ARGUMENT...]
#
# The command finds the server in TEST_S3_ENDPOINT, TEST_S3_KEY and TEST_S3_SECRET. Debian's packages are fetched once
# into CEPH_HOME (default ~/.cache/corrdiff-ceph, 330 MB) and unpacked there, nothing is installed; ports are free ones,
# everything stops with the command, and nothing of it stays but the packages. Debian 12 or newer, no root.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT...]" >&2; exit 2; }

home=${CEPH_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/corrdiff-ceph}
root=$home/root
python=/usr/bin/python3 # Debian's own: its packages' modules are built for it
TEST_S3_KEY=ceph-test-key
TEST_S3_SECRET=ceph-test-secret

say() { echo "ceph: $*" >&2; }

die() { say "$*"; exit 1; }

fetch() {
    [ -e "$home/unpacked" ] && return
    command -v apt-get dpkg >/dev/null || die "apt-get and dpkg are needed to fetch Ceph: run this on Debian 12 or newer"
    rm -rf "$root" && mkdir -p "$home/debs" "$root"
    say "fetching the packages into $home"
    local wanted=(ceph-mon ceph-osd ceph-common radosgw python3-rados python3-ceph-argparse python3-prettytable)
    # What the system lacks of them and of what they need, as apt would install it.
    local packages
    packages=$(apt-get install --simulate --no-install-recommends "${wanted[@]}" | awk '/^Inst/ {print $2}')
    (cd "$home/debs" && apt-get download $packages >/dev/null 2>"$home/apt.log") || die "apt-get download failed, see $home/apt.log; try apt-get update"
    for package in "$home"/debs/*.deb; do dpkg --extract "$package" "$root"; done
    touch "$home/unpacked"
}

free_ports() { "$python" - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in sockets))
PYTHON
}

await() { # a URL that answers, or a process that died
    for _ in $(seq 240); do
        kill -0 "$2" 2>/dev/null || die "$3 ended: $(tail -n 3 "$run/$3.log" | tr '\n' ' ')"
        if "$python" -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=1)" "$1" 2>/dev/null; then return; fi
        sleep 0.5
    done
    die "$3 does not answer at $1 after two minutes: see $run/$3.log"
}

processes=()
stop() {
    local status=$?
    trap '' INT TERM
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    for _ in $(seq 50); do
        kill -0 "${processes[@]}" 2>/dev/null || break
        sleep 0.1
    done
    for process in "${processes[@]}"; do kill -KILL "$process" 2>/dev/null || true; done
    wait
    rm -rf "$run"
    exit $status
}

in_ceph() { # a program of the unpacked tree
    LD_LIBRARY_PATH=$libraries PYTHONPATH=$root/usr/lib/python3/dist-packages PATH=$root/usr/bin:$root/usr/sbin:$PATH "$@"
}

start() { # NAME PROGRAM ARGUMENT...: a daemon in the background, whose process id is known
    local name=$1
    shift
    (LD_LIBRARY_PATH=$libraries exec "$root/usr/bin/$1" "${@:2}") >"$run/$name.log" 2>&1 &
    processes+=($!)
}

ask() { in_ceph timeout 60 "$python" "$root/usr/bin/ceph" -c "$run/ceph.conf" --connect-timeout 50 "$@" >>"$run/ask.log" 2>&1 || die "ceph $*: $(tail -n 3 "$run/ask.log" | tr '\n' ' ')"; }

fetch
machine=$(dpkg-architecture --query DEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
libraries=$root/lib/$machine:$root/usr/lib/$machine:$root/usr/lib/$machine/ceph:$root/usr/lib/ceph
run=$(mktemp --directory --tmpdir ceph-rgw.XXXXXX)
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
read -r monitor gateway <<<"$(free_ports 2)"
cluster=$(cat /proc/sys/kernel/random/uuid)
mkdir "$run/mon" "$run/osd"
cat >"$run/ceph.conf" <<CONF
[global]
fsid = $cluster
mon host = [v1:127.0.0.1:$monitor]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
osd data = $run/osd
mon data = $run/mon
run dir = $run
admin socket = $run/\$name.asok
log file = $run/\$name.ceph.log
plugin dir = $root/usr/lib/$machine/ceph
erasure code dir = $root/usr/lib/$machine/ceph/erasure-code
osd class dir = $root/usr/lib/$machine/rados-classes
osd class load list = *
osd class default list = *
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$gateway
rgw enable usage log = false
CONF
configured=(-c "$run/ceph.conf")
in_ceph monmaptool --create --fsid "$cluster" --addv a "[v1:127.0.0.1:$monitor]" "$run/monmap" >/dev/null
in_ceph ceph-mon "${configured[@]}" --mkfs -i a --monmap "$run/monmap"
start mon ceph-mon "${configured[@]}" -f -i a
ask osd create
ask osd crush add 0 1.0 host=localhost root=default
in_ceph ceph-osd "${configured[@]}" -i 0 --mkfs >"$run/mkfs.log" 2>&1 || die "ceph-osd: $(tail -n 3 "$run/mkfs.log")"
start osd ceph-osd "${configured[@]}" -f -i 0
start rgw radosgw "${configured[@]}" -f -n client.rgw
await "http://127.0.0.1:$gateway/" "${processes[2]}" rgw
in_ceph radosgw-admin "${configured[@]}" user create --uid test --display-name test --access-key "$TEST_S3_KEY" --secret-key "$TEST_S3_SECRET" >"$run/user.log" 2>&1 || die "radosgw-admin: $(tail -n 3 "$run/user.log")"
export TEST_S3_ENDPOINT=http://127.0.0.1:$gateway TEST_S3_KEY TEST_S3_SECRET
say "$(in_ceph radosgw --version) at $TEST_S3_ENDPOINT"
"$@" <&0 & # in the background, so that a signal to this script ends it at once
processes+=($!)
wait $!
