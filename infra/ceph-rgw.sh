#!/usr/bin/env bash
# A real S3 server on loopback: one Ceph node (monitor, object store, RADOS gateway).
#
#     infra/ceph-rgw.sh COMMAND [ARGUMENT...]         beside a command, in memory, on free ports; nothing of it stays
#     infra/ceph-rgw.sh --keep FOLDER --port PORT     until it is told to stop; its objects stay in FOLDER
#
# A command finds the server in TEST_S3_ENDPOINT, TEST_S3_KEY and TEST_S3_SECRET, and the gateway's own administration
# in TEST_S3_ADMIN, a program. A kept one makes a user with a key of its own: FOLDER/user.json, for its owner only. It
# has one copy of everything and nobody to repair it: for a trial or a backup of a backup, not for the only archive.
# Debian's packages are fetched once into CEPH_HOME (default ~/.cache/corrdiff-ceph, 330 MB) and unpacked there, nothing
# is installed. Debian 12 or newer, no root.
set -euo pipefail

usage() { echo "usage: $0 COMMAND [ARGUMENT...] | --keep FOLDER --port PORT" >&2; exit 2; }

keep='' gateway=''
if [ "${1:-}" = --keep ]; then
    [ $# -eq 4 ] && [ "$3" = --port ] || usage
    keep=$2 gateway=$4
else
    [ $# -gt 0 ] || usage
fi

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
    for _ in $(seq "$patience"); do
        kill -0 "${processes[@]}" 2>/dev/null || break
        sleep 0.1
    done
    for process in "${processes[@]}"; do kill -KILL "$process" 2>/dev/null || true; done
    wait
    [ -n "$keep" ] || rm -rf "$run"
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
if [ -n "$keep" ]; then
    (umask 077 && mkdir -p "$keep")
    run=$(cd "$keep" && pwd)
    patience=300 # tenths of a second, for what is still to be written
    # In one file, as large as it may grow; what it does not hold yet takes no room.
    store="osd objectstore = bluestore
bluestore block size = $((${CEPH_GIGABYTES:-200} * 1024 ** 3))
osd memory target = 1073741824"
else
    run=$(mktemp --directory --tmpdir ceph-rgw.XXXXXX)
    patience=50
    store="osd objectstore = memstore
memstore device bytes = 4294967296"
fi
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
new=''
if [ ! -e "$run/made" ]; then # by one that was not cut off
    new=yes
    rm -rf "$run/mon" "$run/osd" "$run/user.json"
    mkdir "$run/mon" "$run/osd"
    cat /proc/sys/kernel/random/uuid >"$run/cluster"
    free_ports 1 >"$run/monitor"
fi
cluster=$(cat "$run/cluster") monitor=$(cat "$run/monitor") # of the monitor, the address is part of the cluster's map
[ -n "$gateway" ] || gateway=$(free_ports 1)
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
osd crush update on start = false
osd class update on start = false
$store
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
if [ -n "$new" ]; then
    in_ceph monmaptool --create --clobber --fsid "$cluster" --addv a "[v1:127.0.0.1:$monitor]" "$run/monmap" >/dev/null
    in_ceph ceph-mon "${configured[@]}" --mkfs -i a --monmap "$run/monmap"
fi
start mon ceph-mon "${configured[@]}" -f -i a
if [ -n "$new" ]; then
    ask osd create
    ask osd crush add 0 1.0 host=localhost root=default
    in_ceph ceph-osd "${configured[@]}" -i 0 --mkfs >"$run/mkfs.log" 2>&1 || die "ceph-osd: $(tail -n 3 "$run/mkfs.log")"
fi
start osd ceph-osd "${configured[@]}" -f -i 0
start rgw radosgw "${configured[@]}" -f -n client.rgw
await "http://127.0.0.1:$gateway/" "${processes[2]}" rgw
user() { in_ceph radosgw-admin "${configured[@]}" user "$@" 2>"$run/user.log" || die "radosgw-admin: $(tail -n 3 "$run/user.log")"; }
if [ -n "$keep" ]; then
    # The key is Ceph's own, so that it stands on no command line.
    [ -n "$new" ] && (umask 077 && user create --uid stack --display-name stack >"$run/user.json")
    touch "$run/made"
    say "$(in_ceph radosgw --version) at http://127.0.0.1:$gateway, kept in $run"
    wait -n "${processes[@]}" || true
    die "one of its processes ended: see $run/*.log"
fi
user create --uid test --display-name test --access-key "$TEST_S3_KEY" --secret-key "$TEST_S3_SECRET" >/dev/null
cat >"$run/admin" <<ADMIN
#!/usr/bin/env bash
LD_LIBRARY_PATH=$libraries exec $root/usr/bin/radosgw-admin -c $run/ceph.conf "\$@"
ADMIN
chmod +x "$run/admin"
export TEST_S3_ADMIN=$run/admin
export TEST_S3_ENDPOINT=http://127.0.0.1:$gateway TEST_S3_KEY TEST_S3_SECRET
say "$(in_ceph radosgw --version) at $TEST_S3_ENDPOINT"
"$@" <&0 & # in the background, so that a signal to this script ends it at once
processes+=($!)
wait $!
