# Supervises one test service. Arguments: root file system, data folder, user id, PATH inside the root.
#
# Runs as the first process of its own PID and mount namespace, so everything under it dies with it. It obeys one
# command a line on standard input and ends, with all it started and the data folder, when that input ends. The kernel
# closes the input when the test process is gone, whatever ended it.
#
#   start WORDS   run a program (its output goes to DATA/log); answers "started PID" and later "exit CODE"
#   signal S PID  send a signal to the program
#   hosts         DATA/hosts becomes the service's /etc/hosts; answers "done"
#   pause|resume  stop or continue every process of the service; answers "done"
set -eu
root=$1 data=$2 user=$3 path=$4

# The root is shared by all services of all tests: nobody writes to it.
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir -m 1777 "$root/dev/shm"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount --bind "$data" "$root/data"
# Process ids in /proc are those of this namespace.
mount -t proc proc /proc
echo ready

child_of() {
    for stat in /proc/[0-9]*/stat; do
        # Processes come and go while this runs.
        { read -r pid _ _ parent _ <"$stat"; } 2>/dev/null || continue
        [ "$parent" = "$1" ] && echo "$pid" && return
    done
    return 1
}

# The program is the first process of a PID namespace of its own, as in a container: when it is killed, the kernel
# ends its children in the same moment.
start() {
    unshare --pid --fork --kill-child chroot --userspec="$user:$user" "$root" \
        env -i PATH="$path" HOME=/data LANG=C.UTF-8 TZ=UTC "$@" >>"$data/log" 2>&1 &
    parent=$!
    until child=$(child_of "$parent"); do
        kill -0 "$parent" 2>/dev/null || break
    done
    echo "started ${child:-0}"
    code=0
    wait "$parent" || code=$?
    echo "exit $code"
}

while read -r command words; do
    case $command in
        # The words are split on purpose: no argument of a service has a space in it.
        start) start $words & ;;
        signal) kill -s ${words% *} ${words#* } || true ;;
        hosts) mount --bind "$data/hosts" "$root/etc/hosts" && echo done ;;
        pause) kill -s STOP -- -1 && echo done ;;
        resume) kill -s CONT -- -1 && echo done ;;
    esac
done

kill -s KILL -- -1 2>/dev/null || true
# A killed process can still create a file in its last moment.
tries=0
until rm -rf -- "$data" 2>/dev/null || [ "$tries" -ge 1000 ]; do
    tries=$((tries + 1))
done
