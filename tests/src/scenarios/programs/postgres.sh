# PostgreSQL: initdb, a server, queries over TCP and a local socket, a second server, a restart.
as() { chroot --userspec=postgres:postgres / env LC_ALL=C.UTF-8 PGDATA=/tmp/data PATH=/usr/lib/postgresql/17/bin:/usr/bin "$@"; }
mkdir -m 700 data
mkdir -m 777 sockets
chown postgres:postgres data
as initdb --no-sync --auth trust --username postgres > initdb.log
options='-c listen_addresses=localhost -c unix_socket_directories=/tmp/sockets -c fsync=off -c autovacuum=off'
as pg_ctl --wait --log /dev/null --options "$options" start > /dev/null
query() { as psql -X -A -t -U postgres "$@" -c 'SELECT 6 * 7' postgres; }
[[ $(query -h 127.0.0.1) == 42 ]]
[[ $(query -h ::1) == 42 ]]
[[ $(query -h localhost) == 42 ]]
[[ $(query -h /tmp/sockets) == 42 ]]
as pg_isready -h localhost
# The port is taken.
cp -r data other
chown -R postgres:postgres other
rm other/postmaster.pid
! as postgres -D /tmp/other -c listen_addresses=127.0.0.1 -c unix_socket_directories= 2> second.log
as pg_ctl --wait --mode fast stop > /dev/null
! as pg_isready -h localhost
