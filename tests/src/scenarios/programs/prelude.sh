# Before each of the scripts here: bash is all that they have beside the programs.
set -eu
cd /tmp
# strace waits for everything that it follows: after a mistake it must not, nor what it follows.
trap '[[ $? == 0 || $? == 77 ]] || kill -KILL $PPID' EXIT

# Says why it cannot be run here.
skip() {
    echo "skip: $*"
    exit 77
}

# Whether somebody listens on a TCP port: the table tells without a connection.
listens() {
    local table
    table=$(</proc/net/tcp)$(</proc/net/tcp6)
    [[ $table == *:$(printf %04X "$1")\ +([^ ])\ 0A\ * ]]
}
shopt -s extglob

# Waits until a command succeeds, for a minute at most.
until_ok() {
    local left=1200
    until "$@"; do
        ((left--)) || { echo "waited in vain: $*"; exit 1; }
        sleep 0.05
    done
}
not() { ! "$@"; }
# Waits until a port is listened on, or not any more.
await() { until_ok listens "$1"; }
await_end() { until_ok not listens "$1"; }
