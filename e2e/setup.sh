#!/bin/sh
# Installs the Debian packages that the tests, the test cluster and the demo need. Quick when all are there.
set -eu

packages="
    etcd-server containerd runc containernetworking-plugins nftables iproute2 iptables conntrack procps
    mmdebstrap util-linux binutils gcc libc6-dev openssl ca-certificates
    nginx-light wrk chromium
"

missing=
for package in $packages; do
    # Other packages may provide the same (nginx-core for nginx-light): the test is whether this one is installed.
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true) in
    *" installed") ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "setup: these Debian packages are missing:$missing" >&2
    echo "setup: run it as root: sudo ./e2e/setup.sh" >&2
    exit 1
fi

# Nothing that is installed here is to be started: the tests start what they need, where they need it.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
fi
finish() {
    [ -z "$made" ] || rm -f "$policy"
}
trap finish EXIT

echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
